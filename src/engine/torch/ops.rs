//! Torch operations on a piece, the unit of arithmetic.

use tch::{Device, Kind as TorchKind, Tensor};

use crate::engine::torch::calls::{TorchResult, largest_finite, to_i64, torch_error, torch_kind};
use crate::error::Result;
use crate::merge::Sums;
use crate::tensor::DType;

/// Elements per piece. 16 K and 1 M were 1.5 to 2 times slower.
pub(crate) const PIECE: usize = 65_536;

/// Bytes of the widest element that is computed with.
pub(crate) const WIDEST: usize = 8;

/// CPU memory for `numel` elements, zero at first.
pub(crate) fn scratch(kind: TorchKind, numel: usize) -> Result<Tensor> {
    Tensor::f_zeros([to_i64(numel)?], (kind, Device::Cpu)).or_torch("allocate")
}

/// The first elements of `scratch`, holding `source` in its kind.
pub(crate) fn widen(scratch: &Tensor, source: &Tensor) -> Result<Tensor> {
    let mut wide = head(scratch, source.numel())?;
    wide.f_copy_(source).or_torch("convert")?;
    Ok(wide)
}

/// The first `numel` elements.
pub(crate) fn head(scratch: &Tensor, numel: usize) -> Result<Tensor> {
    if scratch.numel() == numel {
        return Ok(scratch.shallow_clone());
    }
    part(scratch, 0, numel)
}

/// `length` elements of a flat tensor from `start` on.
pub(crate) fn part(flat: &Tensor, start: usize, length: usize) -> Result<Tensor> {
    flat.f_narrow(0, to_i64(start)?, to_i64(length)?).or_torch("take a view")
}

pub(crate) fn dot(a: &Tensor, b: &Tensor) -> Result<f64> {
    a.f_dot(b).or_torch("take a dot product")?.f_double_value(&[]).or_torch("read a value")
}

/// Whether a dtype has so few bits that float32 holds the product of any two of its values exactly.
pub(crate) fn is_narrow(kind: TorchKind) -> bool {
    !matches!(kind, TorchKind::Float | TorchKind::Double)
}

/// out = s·a.
pub(crate) fn scale_into(out: &Tensor, factor: &Tensor, s: f64, a: &Tensor) -> Result<()> {
    let factor = factor.shallow_clone().f_fill_(s).or_torch("fill")?;
    a.f_mul_out(out, &factor).or_torch("scale").map(drop)
}

/// sum += s·a.
pub(crate) fn add_scaled(sum: &mut Tensor, factor: &Tensor, s: f64, a: &Tensor) -> Result<()> {
    let factor = factor.shallow_clone().f_fill_(s).or_torch("fill")?;
    sum.f_addcmul_(&factor, a).or_torch("add").map(drop)
}

fn double(tensor: &Tensor) -> Result<Tensor> {
    tensor.f_to_kind(TorchKind::Double).or_torch("convert")
}

/// Elements that are NaN or Inf, and the position of the first.
pub(crate) fn count_nonfinite(tensor: &Tensor) -> Result<(u64, Option<u64>)> {
    // Not every kind has isfinite (float8 hasn't); float64 holds them all.
    let finite = double(tensor)?.f_isfinite().or_torch("look for NaN")?;
    let bad = finite.f_logical_not().or_torch("look for NaN")?;
    let positions = bad.f_nonzero().or_torch("look for NaN")?;
    let count = positions.size().first().copied().unwrap_or(0);
    let first = if count > 0 {
        Some(positions.f_int64_value(&[0, 0]).or_torch("read a value")?)
    } else {
        None
    };
    Ok((u64::try_from(count).unwrap_or(0), first.and_then(|first| u64::try_from(first).ok())))
}

/// Whether s0·a + s1·b can leave the dtype's range, by the norms: no element is larger than its
/// tensor's norm.
pub(crate) fn may_overflow(dtype: DType, s0: f64, s1: f64, sums: &Sums) -> bool {
    let bound = s0.abs() * sums.a_squared.sqrt() + s1.abs() * sums.b_squared.sqrt();
    // The margin is for rounding; where it is reached, the elements are checked one by one.
    bound.is_nan() || bound >= largest_finite(dtype) * 0.999
}

/// The torch kind of a dtype that is computed with.
pub(crate) fn computed_kind(dtype: DType) -> Result<TorchKind> {
    torch_kind(dtype).ok_or_else(|| torch_error("a dtype without a torch kind was planned"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonfinite_elements_are_counted_and_the_first_is_found() {
        let tensor = Tensor::from_slice(&[0.0, f32::INFINITY, 1.0, f32::NAN]);
        let tensor = tensor.to_kind(TorchKind::BFloat16);
        assert_eq!(count_nonfinite(&tensor).unwrap(), (2, Some(1)));
    }

    #[test]
    fn overflow_is_ruled_out_by_norms_alone() {
        let sums = |a_squared| Sums { a_squared, ..Sums::default() };
        assert!(!may_overflow(DType::Float16, 0.5, 0.5, &sums(1e9)));
        assert!(may_overflow(DType::Float8E4M3Fn, 1.0, 0.0, &sums(1e6)));
        assert!(may_overflow(DType::Float16, 0.5, 0.5, &sums(f64::NAN)));
    }
}

//! Torch operations on a piece, the unit of arithmetic.

use tch::{Device, Kind as TorchKind, TchError, Tensor};

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

/// Whether torch makes a float64 into such a value through float32 (`c10::Half(float)` and its
/// likes), which rounds twice.
pub(crate) fn rounds_twice(from: TorchKind, to: TorchKind) -> bool {
    let narrow = matches!(
        to,
        TorchKind::Half
            | TorchKind::BFloat16
            | TorchKind::Float8e4m3fn
            | TorchKind::Float8e4m3fnuz
            | TorchKind::Float8e5m2
            | TorchKind::Float8e5m2fnuz
    );
    from == TorchKind::Double && narrow
}

/// out = wide, rounded once, to nearest even. Of `wide` something may be lost where it is float64, and
/// `scratch` is as large as it.
///
/// Where torch would round twice, 13 of float64's 53 significant bits are kept first, the last of them
/// set where something was cut off. Rounding to odd so, the next rounding, to nearest and to at least
/// two bits fewer, is that of the exact value (Boldo and Melquiond, 2008), and float32 holds 13 bits of
/// every value that is not far below the smallest of `out`'s dtype.
pub(crate) fn round_into(
    out: &mut Tensor,
    wide: &Tensor,
    scratch: &Tensor,
) -> std::result::Result<(), TchError> {
    const CUT: i64 = (1 << 40) - 1;
    if rounds_twice(wide.kind(), out.kind()) {
        let mut bits = wide.f_view_dtype(TorchKind::Int64)?;
        let low = scratch.f_view_dtype(TorchKind::Int64)?;
        // The sum carries into the last bit that is kept, unless all bits below it are 0.
        let mut carry = bits.f_bitwise_and_scalar_out(&low, CUT)?;
        let _ = carry.f_add_scalar_(CUT)?;
        let _ = bits.f_bitwise_or_tensor_(&carry)?;
        let _ = bits.f_bitwise_and_(!CUT)?;
    }
    out.f_copy_(wide)
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

    /// Neighbours of float16, bfloat16 and float8 in float64, worked out from the formats themselves.
    #[test]
    fn float64_is_rounded_once_to_narrow_values() {
        // Significant bits, exponent of the smallest normal value.
        for (kind, bits, least) in [
            (TorchKind::Half, 11, -14),
            (TorchKind::BFloat16, 8, -126),
            (TorchKind::Float8e4m3fn, 4, -6),
            (TorchKind::Float8e5m2, 3, -14),
        ] {
            let mut values = Vec::new();
            let mut expected = Vec::new();
            for exponent in [0, 3, least, least - 1, least - (bits - 1)] {
                let unit = 2f64.powi(exponent.max(least) - (bits - 1));
                let low = 2f64.powi(exponent);
                let odd = (low / unit) % 2.0 != 0.0;
                let (tie, hair) = (low + unit / 2.0, unit * 2f64.powi(-30));
                // Ties go to even; a hair beyond one decides.
                for (value, rounded) in [
                    (low, low),
                    (tie, if odd { low + unit } else { low }),
                    (tie + hair, low + unit),
                    (tie - hair, low),
                ] {
                    values.extend([value, -value]);
                    expected.extend([rounded, -rounded]);
                }
            }
            // Far below, nothing is left but the sign.
            let least = 2f64.powi(least - bits - 1);
            values.extend([least, -1e-310, 0.0, f64::INFINITY, f64::MAX]);
            let wide = Tensor::from_slice(&values);
            let mut out = wide.zeros_like().to_kind(kind);
            round_into(&mut out, &wide, &wide.zeros_like()).unwrap();
            let found: Vec<f64> = Vec::try_from(out.to_kind(TorchKind::Double)).unwrap();
            assert_eq!(found[..expected.len()], expected, "{kind:?}");
            let rest = &found[expected.len()..];
            assert_eq!(rest[..3], [0.0; 3], "{kind:?}");
            assert!(rest[1].is_sign_negative() && !rest[2].is_sign_negative());
            // float8 of the kind `fn` has no Inf.
            assert!(rest[3..].iter().all(|value| !value.is_finite()), "{kind:?} {rest:?}");
        }
    }

    #[test]
    fn nan_and_values_of_13_bits_stay_what_they_are() {
        let nan = f64::from_bits(0x7ff0_0000_0000_0001);
        let wide = Tensor::from_slice(&[nan, -65_504.0, 0.25, f64::NEG_INFINITY]);
        let mut out = wide.zeros_like().to_kind(TorchKind::Half);
        round_into(&mut out, &wide, &wide.zeros_like()).unwrap();
        let found: Vec<f64> = Vec::try_from(out.to_kind(TorchKind::Double)).unwrap();
        assert!(found[0].is_nan());
        assert_eq!(found[1..], [-65_504.0, 0.25, f64::NEG_INFINITY]);
    }
}

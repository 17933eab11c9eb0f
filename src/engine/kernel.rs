//! The arithmetic of one piece, with torch operations on one thread.
//!
//! A piece is 65,536 elements: its float32 copies (256 kB each) stay in a core's L2 cache between
//! the operations.

use tch::{Device, Kind as TorchKind, Tensor};

use crate::engine::torch::{TorchResult, largest_finite, torch_error, torch_kind};
use crate::error::Result;
use crate::merge::Sums;
use crate::tensor::DType;

/// Elements per piece. 16 K and 1 M were 1.5 to 2 times slower.
pub(crate) const PIECE: usize = 65_536;

/// Scratch tensors of one worker, for pieces of up to [`PIECE`] elements.
///
/// They are made once: where a piece lies in memory must not depend on chance, since vector
/// libraries may sum in another order at another alignment.
pub(crate) struct Kernel {
    single: Scratch,
    /// For float64 tensors, which are rare.
    double: Option<Scratch>,
}

struct Scratch {
    kind: TorchKind,
    a: Tensor,
    b: Tensor,
    out: Tensor,
    factor: Tensor,
}

impl Scratch {
    fn new(kind: TorchKind) -> Result<Scratch> {
        let make = |numel: usize| {
            let elements = i64::try_from(numel).map_err(|_| torch_error("piece is too large"))?;
            Tensor::f_zeros([elements], (kind, Device::Cpu)).or_torch("allocate")
        };
        Ok(Scratch { kind, a: make(PIECE)?, b: make(PIECE)?, out: make(PIECE)?, factor: make(1)? })
    }

    /// The two sides in the kind that is computed in.
    fn widen(&self, a: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor)> {
        Ok((widen_into(&self.a, a)?, widen_into(&self.b, b)?))
    }
}

/// `source` itself where it has the scratch's kind, else a copy in it.
fn widen_into(scratch: &Tensor, source: &Tensor) -> Result<Tensor> {
    if source.kind() == scratch.kind() {
        return Ok(source.shallow_clone());
    }
    let numel = i64::try_from(source.numel()).map_err(|_| torch_error("piece is too large"))?;
    let mut wide = scratch.f_narrow(0, 0, numel).or_torch("take a view")?;
    wide.f_copy_(source).or_torch("convert")?;
    Ok(wide)
}

fn dot(a: &Tensor, b: &Tensor) -> Result<f64> {
    a.f_dot(b).or_torch("take a dot product")?.f_double_value(&[]).or_torch("read a value")
}

impl Kernel {
    pub(crate) fn new() -> Result<Kernel> {
        Ok(Kernel { single: Scratch::new(TorchKind::Float)?, double: None })
    }

    /// float64 where a side is float64, else float32.
    fn scratch(&mut self, a: &Tensor, b: &Tensor) -> Result<&mut Scratch> {
        if a.kind() != TorchKind::Double && b.kind() != TorchKind::Double {
            return Ok(&mut self.single);
        }
        if self.double.is_none() {
            self.double = Some(Scratch::new(TorchKind::Double)?);
        }
        self.double.as_mut().ok_or_else(|| torch_error("no scratch"))
    }

    /// a·b, ‖a‖² and ‖b‖² of a piece, summed in float32 (float64 for float64 tensors).
    ///
    /// Large finite values whose squares overflow float32 are summed again in float64, so that
    /// a sum that is not finite means a value that is not.
    pub(crate) fn sums(&mut self, a: &Tensor, b: &Tensor) -> Result<Sums> {
        let scratch = self.scratch(a, b)?;
        let (wide_a, wide_b) = scratch.widen(a, b)?;
        let sums = Sums {
            dot: dot(&wide_a, &wide_b)?,
            a_squared: dot(&wide_a, &wide_a)?,
            b_squared: dot(&wide_b, &wide_b)?,
        };
        if sums.is_finite() || scratch.kind == TorchKind::Double {
            return Ok(sums);
        }
        let (a, b) = (double(a)?, double(b)?);
        Ok(Sums { dot: dot(&a, &b)?, a_squared: dot(&a, &a)?, b_squared: dot(&b, &b)? })
    }

    /// ‖a‖² of a piece: NaN or Inf where an element is.
    pub(crate) fn square(&mut self, a: &Tensor) -> Result<f64> {
        let scratch = self.scratch(a, a)?;
        let wide = widen_into(&scratch.a, a)?;
        let square = dot(&wide, &wide)?;
        if square.is_finite() { Ok(square) } else { dot(&double(a)?, &double(a)?) }
    }

    /// out = s0·a + s1·b, computed in float32 (float64 for float64 tensors), rounded to nearest
    /// even in the dtype of `out`.
    pub(crate) fn blend(
        &mut self,
        a: &Tensor,
        b: &Tensor,
        (s0, s1): (f64, f64),
        out: &mut Tensor,
    ) -> Result<()> {
        let scratch = self.scratch(a, b)?;
        let (wide_a, wide_b) = scratch.widen(a, b)?;
        let numel = i64::try_from(a.numel()).map_err(|_| torch_error("piece is too large"))?;
        let sum = if out.kind() == scratch.kind {
            out.shallow_clone()
        } else {
            scratch.out.f_narrow(0, 0, numel).or_torch("take a view")?
        };
        let _ = wide_a.f_mul_scalar_out(&sum, s0).or_torch("scale")?;
        let _ = scratch.factor.f_fill_(s1).or_torch("fill")?;
        // addr adds the outer product of a one-element vector and b: s1·b, in one pass.
        let _ = sum
            .f_view([1, numel])
            .or_torch("take a view")?
            .f_addr_(&scratch.factor, &wide_b)
            .or_torch("add")?;
        if out.kind() != scratch.kind {
            out.f_copy_(&sum).or_torch("convert")?;
        }
        Ok(())
    }
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
    // Rounding up to 1 ulp beyond the largest value is left to the exact check.
    bound.is_nan() || bound >= largest_finite(dtype) * 0.999
}

/// The torch kind of a dtype that is computed with.
pub(crate) fn computed_kind(dtype: DType) -> Result<TorchKind> {
    torch_kind(dtype).ok_or_else(|| torch_error("a dtype without a torch kind was planned"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32], kind: TorchKind) -> Tensor {
        Tensor::from_slice(values).to_kind(kind)
    }

    #[test]
    fn sums_are_those_worked_by_hand() {
        let mut kernel = Kernel::new().unwrap();
        let a = tensor(&[1.0, 2.0, 3.0], TorchKind::Half);
        let b = tensor(&[4.0, -5.0, 6.0], TorchKind::Half);
        let sums = kernel.sums(&a, &b).unwrap();
        assert_eq!((sums.dot, sums.a_squared, sums.b_squared), (12.0, 14.0, 77.0));
    }

    #[test]
    fn squares_beyond_float32_are_summed_in_float64() {
        let mut kernel = Kernel::new().unwrap();
        let a = tensor(&[1e30], TorchKind::Float);
        let sums = kernel.sums(&a, &a).unwrap();
        assert!((sums.dot / 1e60 - 1.0).abs() < 1e-6);
        assert!(!kernel.square(&tensor(&[f32::NAN], TorchKind::Half)).unwrap().is_finite());
    }

    #[test]
    fn a_blend_is_rounded_once() {
        let mut kernel = Kernel::new().unwrap();
        let a = tensor(&[1.0, 1.0], TorchKind::Half);
        let b = tensor(&[1.000_976_6, 3.0], TorchKind::Half);
        let mut out = tensor(&[0.0, 0.0], TorchKind::Half);
        kernel.blend(&a, &b, (0.25, 0.75), &mut out).unwrap();
        // 0.25 + 0.75·(1 + 2⁻¹⁰) = 1 + 0.75·2⁻¹⁰ rounds to 1 + 2⁻¹⁰.
        let values: Vec<f32> = Vec::try_from(out.to_kind(TorchKind::Float)).unwrap();
        assert_eq!(values, [1.000_976_6, 2.5]);
    }

    #[test]
    fn nonfinite_elements_are_counted_and_the_first_is_found() {
        let tensor = tensor(&[0.0, f32::INFINITY, 1.0, f32::NAN], TorchKind::BFloat16);
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

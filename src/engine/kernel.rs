//! The arithmetic of one piece, with torch operations on one thread.
//!
//! A piece is 65,536 elements: its float32 copies (256 kB each) stay in a core's L2 cache between
//! the operations.

use tch::{Device, Kind as TorchKind, Tensor};

use crate::engine::narrow::Narrow;
use crate::engine::torch::{TorchResult, largest_finite, torch_error, torch_kind};
use crate::error::Result;
use crate::merge::Sums;
use crate::tensor::DType;

/// Elements per piece. 16 K and 1 M were 1.5 to 2 times slower.
pub(crate) const PIECE: usize = 65_536;

/// Bytes of the widest element that is computed with.
pub(crate) const WIDEST: usize = 8;

/// Scratch of one worker, for pieces of up to [`PIECE`] elements.
///
/// It is made once: where a piece lies in memory must not depend on chance, since vector libraries
/// may sum in another order at another alignment.
pub(crate) struct Kernel {
    narrow: Narrow,
    /// For float32 and float64 tensors.
    wide: Option<Wide>,
}

/// Scratch in float64.
struct Wide {
    a: Tensor,
    b: Tensor,
    out: Tensor,
    factor: Tensor,
}

/// A piece of both sides whose wider copies are in the kernel's scratch, until the next one is
/// widened.
pub(crate) struct Widened<'t> {
    a: &'t Tensor,
    b: &'t Tensor,
    /// Whether the copies are float64.
    wide: bool,
}

pub(crate) fn scratch(kind: TorchKind, numel: usize) -> Result<Tensor> {
    Tensor::f_zeros([to_i64(numel)?], (kind, Device::Cpu)).or_torch("allocate")
}

pub(crate) fn to_i64(value: usize) -> Result<i64> {
    i64::try_from(value).map_err(|_| torch_error("piece is too large"))
}

/// The first elements of `scratch`, holding `source` in its kind.
fn widen(scratch: &Tensor, source: &Tensor) -> Result<Tensor> {
    let mut wide = head(scratch, source.numel())?;
    wide.f_copy_(source).or_torch("convert")?;
    Ok(wide)
}

/// The first `numel` elements.
fn head(scratch: &Tensor, numel: usize) -> Result<Tensor> {
    if scratch.numel() == numel {
        return Ok(scratch.shallow_clone());
    }
    scratch.f_narrow(0, 0, to_i64(numel)?).or_torch("take a view")
}

fn dot(a: &Tensor, b: &Tensor) -> Result<f64> {
    a.f_dot(b).or_torch("take a dot product")?.f_double_value(&[]).or_torch("read a value")
}

/// Whether a dtype has so few bits that float32 holds the product of any two of its values.
pub(crate) fn is_narrow(kind: TorchKind) -> bool {
    !matches!(kind, TorchKind::Float | TorchKind::Double)
}

impl Kernel {
    pub(crate) fn new() -> Result<Kernel> {
        Ok(Kernel { narrow: Narrow::new()?, wide: None })
    }

    fn wide(&mut self) -> Result<&Wide> {
        if self.wide.is_none() {
            self.wide = Some(Wide {
                a: scratch(TorchKind::Double, PIECE)?,
                b: scratch(TorchKind::Double, PIECE)?,
                out: scratch(TorchKind::Double, PIECE)?,
                factor: scratch(TorchKind::Double, 1)?,
            });
        }
        self.wide.as_ref().ok_or_else(|| torch_error("no scratch"))
    }

    /// Copies a piece of both sides to the scratch: to float32 where both are narrow, and to float64
    /// where one isn't or the child isn't (`exact`).
    pub(crate) fn widen<'t>(
        &mut self,
        a: &'t Tensor,
        b: &'t Tensor,
        exact: bool,
    ) -> Result<Widened<'t>> {
        let wide = exact || !(is_narrow(a.kind()) && is_narrow(b.kind()));
        if wide {
            let scratch = self.wide()?;
            let _ = (widen(&scratch.a, a)?, widen(&scratch.b, b)?);
        } else {
            self.narrow.widen(a, b)?;
        }
        Ok(Widened { a, b, wide })
    }

    /// a·b, ‖a‖² and ‖b‖² of a piece.
    ///
    /// Narrow ones are summed as [`Narrow::sums`] says. Wider tensors, those for a wider child, and
    /// values whose squares overflow float32, are summed in float64, so that a sum that is not
    /// finite means a value that is not.
    pub(crate) fn sums(&mut self, piece: &Widened<'_>) -> Result<Sums> {
        if !piece.wide {
            let sums = self.narrow.sums(piece.a.numel())?;
            if sums.is_finite() {
                return Ok(sums);
            }
        }
        let wide = self.wide()?;
        let (a, b) = (widen(&wide.a, piece.a)?, widen(&wide.b, piece.b)?);
        Ok(Sums { dot: dot(&a, &b)?, a_squared: dot(&a, &a)?, b_squared: dot(&b, &b)? })
    }

    /// ‖a‖² of a piece: NaN or Inf where an element is.
    pub(crate) fn square(&mut self, a: &Tensor) -> Result<f64> {
        let wide = self.wide()?;
        let a = widen(&wide.a, a)?;
        dot(&a, &a)
    }

    /// out = s0·a + s1·b, rounded to nearest even in the dtype of `out`, within one unit in the
    /// last place also where s0·a and s1·b nearly cancel. 16-bit values are computed as
    /// [`Narrow::blend`] says, wider ones in float64.
    ///
    /// `large`: values may be so large that a + b overflows float32. `last`: the piece is not used
    /// after this.
    pub(crate) fn blend(
        &mut self,
        piece: &Widened<'_>,
        (s0, s1): (f64, f64),
        (large, last): (bool, bool),
        out: &mut Tensor,
    ) -> Result<()> {
        let numel = piece.a.numel();
        if !piece.wide {
            return self.narrow.blend(numel, (s0, s1), (large, last), out);
        }
        let wide = self.wide()?;
        let (a, b, mut sum) =
            (head(&wide.a, numel)?, head(&wide.b, numel)?, head(&wide.out, numel)?);
        scale_into(&sum, &wide.factor, s0, &a)?;
        add_scaled(&mut sum, &wide.factor, s1, &b)?;
        out.f_copy_(&sum).or_torch("convert")
    }
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

    fn sums(kernel: &mut Kernel, a: &Tensor, b: &Tensor) -> Sums {
        let piece = kernel.widen(a, b, false).unwrap();
        kernel.sums(&piece).unwrap()
    }

    #[test]
    fn sums_are_those_worked_by_hand() {
        let mut kernel = Kernel::new().unwrap();
        let a = tensor(&[1.0, 2.0, 3.0], TorchKind::Half);
        let b = tensor(&[4.0, -5.0, 6.0], TorchKind::Half);
        let sums = sums(&mut kernel, &a, &b);
        assert_eq!((sums.dot, sums.a_squared, sums.b_squared), (12.0, 14.0, 77.0));
    }

    #[test]
    fn squares_beyond_float32_are_summed_in_float64() {
        let mut kernel = Kernel::new().unwrap();
        let a = tensor(&[1e30], TorchKind::Float);
        let sums = sums(&mut kernel, &a, &a);
        assert!((sums.dot / 1e60 - 1.0).abs() < 1e-6);
        assert!(!kernel.square(&tensor(&[f32::NAN], TorchKind::Half)).unwrap().is_finite());
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

//! Sums and blends one piece, with torch operations on one thread.
//!
//! A piece is 65,536 elements: its float32 copies (256 kB each) stay in a core's L2 cache between
//! the operations.

use tch::{Kind as TorchKind, Tensor};

use crate::engine::cpu::narrow::Narrow;
use crate::engine::torch::calls::{TorchResult, torch_error};
use crate::engine::torch::ops::{
    PIECE, add_scaled, dot, head, is_narrow, round_into, rounds_twice, scale_into, scratch, widen,
};
use crate::error::Result;
use crate::merge::Sums;

/// Scratch of one worker, for pieces of up to [`PIECE`] elements.
///
/// Allocated once: alignment must not differ from run to run, since vector libraries may sum in
/// another order at another alignment.
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
    low: Tensor,
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
                low: scratch(TorchKind::Double, PIECE)?,
                factor: scratch(TorchKind::Double, 1)?,
            });
        }
        self.wide.as_ref().ok_or_else(|| torch_error("no scratch"))
    }

    /// Widens a piece of both sides into the scratch: to float32 where both are narrow, to float64
    /// where one is not or the child is not (`exact`).
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
        round_into(out, &sum, &head(&wide.low, numel)?).or_torch("convert")
    }

    /// out = a, rounded to nearest even. What was widened stays.
    pub(crate) fn convert(&mut self, a: &Tensor, out: &mut Tensor) -> Result<()> {
        if !rounds_twice(a.kind(), out.kind()) {
            return out.f_copy_(a).or_torch("convert");
        }
        let wide = self.wide()?;
        let copy = widen(&wide.out, a)?;
        round_into(out, &copy, &head(&wide.low, a.numel())?).or_torch("convert")
    }
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
}

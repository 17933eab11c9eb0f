//! The arithmetic of one piece, with torch operations on one thread.
//!
//! A piece is 65,536 elements: its float32 copies (256 kB each) stay in a core's L2 cache between
//! the operations.

use tch::{Device, Kind as TorchKind, Tensor};

use crate::engine::buffer::Buffer;
use crate::engine::torch::{TorchResult, largest_finite, torch_error, torch_kind};
use crate::error::Result;
use crate::merge::Sums;
use crate::tensor::DType;

/// Elements per piece. 16 K and 1 M were 1.5 to 2 times slower.
pub(crate) const PIECE: usize = 65_536;

/// Products per partial sum in float32. Short rows keep rounding small: relative errors are about
/// 1e-9 of ‖a‖‖b‖, where one dot product over a whole piece was seen to be off by 2e-6.
const ROW: usize = 1024;

/// Scratch of one worker, for pieces of up to [`PIECE`] elements.
///
/// It is made once: where a piece lies in memory must not depend on chance, since vector libraries
/// may sum in another order at another alignment.
pub(crate) struct Kernel {
    a: Tensor,
    b: Tensor,
    out: Tensor,
    /// Partial sums of a piece, read back as bytes.
    rows: Buffer,
    factor: Tensor,
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

fn scratch(kind: TorchKind, numel: usize) -> Result<Tensor> {
    Tensor::f_zeros([to_i64(numel)?], (kind, Device::Cpu)).or_torch("allocate")
}

fn to_i64(value: usize) -> Result<i64> {
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

/// Splits s = high + low: `high` has 12 significant bits, so that float32 holds its product with
/// an 11-bit float16 (or an 8-bit bfloat16) exactly; `low` carries the rest.
fn split(s: f64) -> (f64, f64) {
    #[expect(clippy::cast_possible_truncation, reason = "the rest is taken from the difference")]
    let high = f64::from(f32::from_bits((s as f32).to_bits() & 0xffff_f000));
    (high, s - high)
}

impl Kernel {
    pub(crate) fn new() -> Result<Kernel> {
        Ok(Kernel {
            a: scratch(TorchKind::Float, PIECE)?,
            b: scratch(TorchKind::Float, PIECE)?,
            out: scratch(TorchKind::Float, PIECE)?,
            rows: Buffer::new((PIECE / ROW) * size_of::<f32>())?,
            factor: scratch(TorchKind::Float, 1)?,
            wide: None,
        })
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

    /// a·b, ‖a‖² and ‖b‖² of a piece.
    ///
    /// Products of 16-bit values are exact in float32; they are summed in float32 over rows of
    /// [`ROW`] and in float64 across rows. Wider tensors, those for a wider child (`exact`), and
    /// values whose squares overflow float32, are summed in float64, so that a sum that is not
    /// finite means a value that is not.
    pub(crate) fn sums(&mut self, a: &Tensor, b: &Tensor, exact: bool) -> Result<Sums> {
        if is_narrow(a.kind()) && is_narrow(b.kind()) && !exact {
            let (wide_a, wide_b) = (widen(&self.a, a)?, widen(&self.b, b)?);
            let sums = Sums {
                dot: self.row_products(&wide_a, &wide_b)?,
                a_squared: self.row_products(&wide_a, &wide_a)?,
                b_squared: self.row_products(&wide_b, &wide_b)?,
            };
            if sums.is_finite() {
                return Ok(sums);
            }
        }
        let wide = self.wide()?;
        let (a, b) = (widen(&wide.a, a)?, widen(&wide.b, b)?);
        Ok(Sums { dot: dot(&a, &b)?, a_squared: dot(&a, &a)?, b_squared: dot(&b, &b)? })
    }

    /// ‖a‖² of a piece: NaN or Inf where an element is.
    pub(crate) fn square(&mut self, a: &Tensor) -> Result<f64> {
        let wide = self.wide()?;
        let a = widen(&wide.a, a)?;
        dot(&a, &a)
    }

    /// Σ a·b over float32 scratch, row by row.
    fn row_products(&mut self, a: &Tensor, b: &Tensor) -> Result<f64> {
        let numel = a.numel();
        let product = head(&self.out, numel)?;
        let _ = a.f_mul_out(&product, b).or_torch("multiply")?;
        let full = numel / ROW;
        let mut sum = 0.0;
        if full > 0 {
            let whole = head(&product, full * ROW)?;
            let rows = whole.f_view([to_i64(full)?, to_i64(ROW)?]).or_torch("take a view")?;
            let out = self.rows.view(0, TorchKind::Float, full)?;
            let _ = rows
                .f_sum_intlist_out(&out, [1i64].as_slice(), false, TorchKind::Float)
                .or_torch("sum")?;
            for row in self.rows.bytes().chunks_exact(size_of::<f32>()).take(full) {
                let bytes = row.try_into().unwrap_or_default();
                sum += f64::from(f32::from_le_bytes(bytes));
            }
        }
        if numel > full * ROW {
            let rest = product
                .f_narrow(0, to_i64(full * ROW)?, to_i64(numel - full * ROW)?)
                .or_torch("take a view")?;
            let rest = rest.f_sum(TorchKind::Float).or_torch("sum")?;
            sum += rest.f_double_value(&[]).or_torch("read a value")?;
        }
        Ok(sum)
    }

    /// out = s0·a + s1·b, rounded to nearest even in the dtype of `out`, within one unit in the
    /// last place also where s0·a and s1·b nearly cancel.
    ///
    /// 16-bit values are computed in float32 with the factors in two parts: the products with the
    /// high parts are exact, so only the low parts' rounding (2⁻³⁶ of a term) is left. Wider ones
    /// are computed in float64.
    pub(crate) fn blend(
        &mut self,
        a: &Tensor,
        b: &Tensor,
        (s0, s1): (f64, f64),
        out: &mut Tensor,
    ) -> Result<()> {
        if !(is_narrow(a.kind()) && is_narrow(b.kind()) && is_narrow(out.kind())) {
            let wide = self.wide()?;
            let (a, b) = (widen(&wide.a, a)?, widen(&wide.b, b)?);
            let mut sum = head(&wide.out, a.numel())?;
            scale_into(&sum, &wide.factor, s0, &a)?;
            add_scaled(&mut sum, &wide.factor, s1, &b)?;
            return out.f_copy_(&sum).or_torch("convert");
        }
        let (wide_a, wide_b) = (widen(&self.a, a)?, widen(&self.b, b)?);
        let mut sum = head(&self.out, a.numel())?;
        if s0 == s1 {
            // At t = 0.5: the sum of two 16-bit values is rounded by a 2⁻²⁴th of itself.
            let _ = wide_a.f_add_out(&sum, &wide_b).or_torch("add")?;
            let _ = sum.f_mul_scalar_(s0).or_torch("scale")?;
            return out.f_copy_(&sum).or_torch("convert");
        }
        let ((high0, low0), (high1, low1)) = (split(s0), split(s1));
        scale_into(&sum, &self.factor, high0, &wide_a)?;
        add_scaled(&mut sum, &self.factor, high1, &wide_b)?;
        // Without low parts nothing is added: 0·Inf would be NaN.
        if low0 != 0.0 {
            add_scaled(&mut sum, &self.factor, low0, &wide_a)?;
        }
        if low1 != 0.0 {
            add_scaled(&mut sum, &self.factor, low1, &wide_b)?;
        }
        out.f_copy_(&sum).or_torch("convert")
    }
}

/// out = s·a.
fn scale_into(out: &Tensor, factor: &Tensor, s: f64, a: &Tensor) -> Result<()> {
    let factor = factor.shallow_clone().f_fill_(s).or_torch("fill")?;
    a.f_mul_out(out, &factor).or_torch("scale").map(drop)
}

/// sum += s·a.
fn add_scaled(sum: &mut Tensor, factor: &Tensor, s: f64, a: &Tensor) -> Result<()> {
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

    #[test]
    fn sums_are_those_worked_by_hand() {
        let mut kernel = Kernel::new().unwrap();
        let a = tensor(&[1.0, 2.0, 3.0], TorchKind::Half);
        let b = tensor(&[4.0, -5.0, 6.0], TorchKind::Half);
        let sums = kernel.sums(&a, &b, false).unwrap();
        assert_eq!((sums.dot, sums.a_squared, sums.b_squared), (12.0, 14.0, 77.0));
    }

    #[test]
    fn squares_beyond_float32_are_summed_in_float64() {
        let mut kernel = Kernel::new().unwrap();
        let a = tensor(&[1e30], TorchKind::Float);
        let sums = kernel.sums(&a, &a, false).unwrap();
        assert!((sums.dot / 1e60 - 1.0).abs() < 1e-6);
        assert!(!kernel.square(&tensor(&[f32::NAN], TorchKind::Half)).unwrap().is_finite());
    }

    #[test]
    fn terms_that_cancel_leave_what_float64_leaves() {
        let mut kernel = Kernel::new().unwrap();
        let (a, b) = (1.0 + 2f64.powi(-7), -(2.0 + 2f64.powi(-6)));
        let (s0, s1) = (0.666_666_7, 0.333_333_3);
        for kind in [TorchKind::BFloat16, TorchKind::Half] {
            let mut out = tensor(&[0.0], kind);
            let (a32, b32) = (tensor(&[a as f32], kind), tensor(&[b as f32], kind));
            kernel.blend(&a32, &b32, (s0, s1), &mut out).unwrap();
            let exact = s0 * a + s1 * b;
            let found = f64::try_from(out.to_kind(TorchKind::Double)).unwrap();
            // 2⁻⁸ is half a unit in bfloat16's last place; float16 is subnormal here, 2⁻²⁴ apart.
            let allowed =
                if kind == TorchKind::Half { 2f64.powi(-24) } else { exact.abs() / 256.0 };
            assert!((found - exact).abs() <= allowed, "{kind:?}: {found:e} for {exact:e}");
        }
    }

    #[test]
    fn opposite_values_leave_nothing_half_way() {
        let mut kernel = Kernel::new().unwrap();
        let a = tensor(&[0.013_671_875, -3.0], TorchKind::BFloat16);
        let mut out = tensor(&[1.0, 1.0], TorchKind::BFloat16);
        kernel.blend(&a, &a.neg(), (0.503_123_456_7, 0.503_123_456_7), &mut out).unwrap();
        assert_eq!(Vec::<f32>::try_from(out.to_kind(TorchKind::Float)).unwrap(), [0.0, 0.0]);
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

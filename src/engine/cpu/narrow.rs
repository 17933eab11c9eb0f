//! Sums and blends pieces of 16-bit and 8-bit values, in float32.
//!
//! Both sides are widened once, side by side, and each result takes few operations: every one of
//! them costs as much as reading the piece from the L2 cache.

use tch::{Kind as TorchKind, Tensor};

use crate::engine::torch::buffer::Buffer;
use crate::engine::torch::calls::{TorchResult, to_i64};
use crate::engine::torch::ops::{PIECE, add_scaled, part, scale_into, scratch};
use crate::error::Result;
use crate::merge::Sums;

/// Products per partial sum in float32. Short rows keep rounding small: relative errors are about
/// 3e-8 of ‖a‖‖b‖, where one dot product over a whole piece was seen to be off by 2e-6.
const ROW: usize = 256;

/// Bytes of the four products of a row: a·a, a·b, b·a, b·b.
const PRODUCTS_BYTES: usize = 4 * size_of::<f32>();

/// float32 scratch for pieces of up to [`PIECE`] elements.
pub(crate) struct Narrow {
    /// The primary's elements from 0 on, the secondary's from [`PIECE`] on.
    pair: Tensor,
    sum: Tensor,
    products: Buffer,
    factor: Tensor,
    /// Views for pieces of full length: making them costs as much as some of the operations.
    full: Views,
}

/// Views of the scratch for pieces of one length.
struct Views {
    a: Tensor,
    b: Tensor,
    sum: Tensor,
    /// Whole rows, then what is left of the last one.
    grams: Vec<Gram>,
}

/// A batch of rows of both sides, `[rows, 2, width]`, its transpose, and their products
/// `[rows, 2, 2]`.
struct Gram {
    rows: Tensor,
    columns: Tensor,
    products: Tensor,
}

impl Narrow {
    pub(crate) fn new() -> Result<Narrow> {
        let pair = scratch(TorchKind::Float, 2 * PIECE)?;
        let sum = scratch(TorchKind::Float, PIECE)?;
        let products = Buffer::new((PIECE / ROW + 1) * PRODUCTS_BYTES)?;
        let full = Views::new(&pair, &sum, &products, PIECE)?;
        Ok(Narrow { pair, sum, products, factor: scratch(TorchKind::Float, 1)?, full })
    }

    /// Widens a piece of both sides into the scratch.
    pub(crate) fn widen(&mut self, a: &Tensor, b: &Tensor) -> Result<()> {
        self.with_views(a.numel(), |views, _| {
            views.a.f_copy_(a).or_torch("convert")?;
            views.b.f_copy_(b).or_torch("convert")
        })
    }

    fn with_views<T>(
        &mut self,
        numel: usize,
        work: impl FnOnce(&mut Views, &Tensor) -> Result<T>,
    ) -> Result<T> {
        if numel == PIECE {
            return work(&mut self.full, &self.factor);
        }
        let mut views = Views::new(&self.pair, &self.sum, &self.products, numel)?;
        work(&mut views, &self.factor)
    }

    /// a·b, ‖a‖² and ‖b‖² of a piece of `numel` elements that was widened.
    ///
    /// Products of narrow values are exact in float32; they are summed in float32 over rows of
    /// [`ROW`] and in float64 across rows. All three come from one product of matrices per row:
    /// \[a; b\]·\[a; b\]ᵀ.
    pub(crate) fn sums(&mut self, numel: usize) -> Result<Sums> {
        self.with_views(numel, |views, _| {
            views.grams.iter().try_for_each(|gram| {
                gram.rows.f_bmm_out(&gram.products, &gram.columns).or_torch("multiply").map(drop)
            })
        })?;
        let mut sums = Sums::default();
        let rows = numel.div_ceil(ROW);
        for row in self.products.bytes().chunks_exact(PRODUCTS_BYTES).take(rows) {
            let [a_squared, dot, _, b_squared] = values(row);
            sums.add(Sums { dot, a_squared, b_squared });
        }
        Ok(sums)
    }

    /// out = s0·a + s1·b of a piece that was widened, rounded to nearest even in the dtype of
    /// `out`, within one unit in the last place also where s0·a and s1·b nearly cancel.
    ///
    /// With |s1| ≤ |s0| and ρ = s1/s0 it is s0·(a + ρ·b), ρ in two parts: the product with the high
    /// part is exact, so a + ρ·b is rounded relative to itself, however much cancels; only the low
    /// part's rounding (2⁻³⁶ of a term) is left. Where a + ρ·b could overflow (`large`) it is halved.
    ///
    /// For the `last` child of a piece the result overwrites the wider copies, which spares the cache
    /// a third buffer.
    pub(crate) fn blend(
        &mut self,
        numel: usize,
        (s0, s1): (f64, f64),
        (large, last): (bool, bool),
        out: &mut Tensor,
    ) -> Result<()> {
        self.with_views(numel, |views, factor| {
            let blended = views.blend(factor, (s0, s1), (large, last))?;
            out.f_copy_(blended).or_torch("convert")
        })
    }
}

fn values(row: &[u8]) -> [f64; 4] {
    let mut values = [0.0; 4];
    for (value, bytes) in values.iter_mut().zip(row.chunks_exact(size_of::<f32>())) {
        *value = f64::from(f32::from_le_bytes(bytes.try_into().unwrap_or_default()));
    }
    values
}

/// Splits s = high + low: `high` has 12 significant bits, so that float32 holds its product with
/// an 11-bit float16 (or an 8-bit bfloat16) exactly; `low` carries the rest.
fn split(s: f64) -> (f64, f64) {
    #[expect(clippy::cast_possible_truncation, reason = "the rest is taken from the difference")]
    let high = f64::from(f32::from_bits((s as f32).to_bits() & 0xffff_f000));
    (high, s - high)
}

impl Views {
    fn new(pair: &Tensor, sum: &Tensor, products: &Buffer, numel: usize) -> Result<Views> {
        let mut grams = Vec::with_capacity(2);
        let whole = numel - numel % ROW;
        for (start, rows, width) in [(0, whole / ROW, ROW), (whole, 1, numel % ROW)] {
            if rows > 0 && width > 0 {
                grams.push(Gram::new(pair, products, (start, rows, width))?);
            }
        }
        Ok(Views {
            a: part(pair, 0, numel)?,
            b: part(pair, PIECE, numel)?,
            sum: part(sum, 0, numel)?,
            grams,
        })
    }

    fn blend(
        &mut self,
        factor: &Tensor,
        (s0, s1): (f64, f64),
        (large, last): (bool, bool),
    ) -> Result<&Tensor> {
        let sum = &mut self.sum;
        if split(s0).1 == 0.0 && split(s1).1 == 0.0 {
            // Both products are exact, which one with their ratio need not be: 0.75 and 0.25.
            scale_into(sum, factor, s0, &self.a)?;
            add_scaled(sum, factor, s1, &self.b)?;
            return Ok(sum);
        }
        let (first, second, s, ratio) = if s0.abs() >= s1.abs() {
            (&mut self.a, &self.b, s0, s1 / s0)
        } else {
            (&mut self.b, &self.a, s1, s0 / s1)
        };
        let (high, low) = split(ratio);
        let sum = if large {
            scale_into(sum, factor, 0.5, first)?;
            add_scaled(sum, factor, 0.5 * high, second)?;
            sum
        } else if last {
            match ratio == 1.0 {
                true => drop(first.f_add_(second).or_torch("add")?),
                false => add_scaled(first, factor, high, second)?,
            }
            first
        } else {
            match ratio == 1.0 {
                true => drop(first.f_add_out(sum, second).or_torch("add")?),
                false => {
                    let high = factor.shallow_clone().f_fill_(high).or_torch("fill")?;
                    drop(first.f_addcmul_out(sum, &high, second).or_torch("add")?);
                }
            }
            sum
        };
        // Without a low part nothing is added: 0·Inf would be NaN.
        if low != 0.0 {
            add_scaled(sum, factor, if large { 0.5 * low } else { low }, second)?;
        }
        let s = if large { 2.0 * s } else { s };
        let _ = sum.f_mul_scalar_(s).or_torch("scale")?;
        Ok(sum)
    }
}

impl Gram {
    /// `rows` rows of `width` elements from element `start` of both sides on.
    fn new(
        pair: &Tensor,
        products: &Buffer,
        (start, rows, width): (usize, usize, usize),
    ) -> Result<Gram> {
        let (n_rows, n_columns) = (to_i64(rows)?, to_i64(width)?);
        let both = pair
            .f_as_strided([n_rows, 2, n_columns], [n_columns, to_i64(PIECE)?, 1], to_i64(start)?)
            .or_torch("take a view")?;
        let products = products
            .view(start / ROW * PRODUCTS_BYTES, TorchKind::Float, rows * 4)?
            .f_view([n_rows, 2, 2])
            .or_torch("take a view")?;
        Ok(Gram { columns: both.f_transpose(1, 2).or_torch("take a view")?, rows: both, products })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cpu::kernel::Kernel;

    fn tensor(values: &[f32], kind: TorchKind) -> Tensor {
        Tensor::from_slice(values).to_kind(kind)
    }

    /// The blend of the last child of a piece, which that of another one must equal.
    fn blend(a: &Tensor, b: &Tensor, factors: (f64, f64), large: bool) -> Vec<f64> {
        let mut kernel = Kernel::new().unwrap();
        let (mut other, mut out) = (a.zeros_like(), a.zeros_like());
        let piece = kernel.widen(a, b, false).unwrap();
        kernel.blend(&piece, factors, (large, false), &mut other).unwrap();
        kernel.blend(&piece, factors, (large, true), &mut out).unwrap();
        assert!(other.equal(&out));
        Vec::try_from(out.to_kind(TorchKind::Double)).unwrap()
    }

    #[test]
    fn terms_that_cancel_leave_what_float64_leaves() {
        let (a, b) = (1.0 + 2f64.powi(-7), -(2.0 + 2f64.powi(-6)));
        for kind in [TorchKind::BFloat16, TorchKind::Half] {
            for (x, y, s0, s1) in
                [(a, b, 0.666_666_7, 0.333_333_3), (b, a, 0.333_333_3, 0.666_666_7)]
            {
                let (x32, y32) = (tensor(&[x as f32], kind), tensor(&[y as f32], kind));
                let exact = s0 * x + s1 * y;
                // 2⁻⁸ is half a unit in bfloat16's last place; float16 is subnormal here, 2⁻²⁴ apart.
                let allowed =
                    if kind == TorchKind::Half { 2f64.powi(-24) } else { exact.abs() / 256.0 };
                for large in [false, true] {
                    let found = blend(&x32, &y32, (s0, s1), large)[0];
                    assert!((found - exact).abs() <= allowed, "{kind:?}: {found:e} for {exact:e}");
                }
            }
        }
    }

    /// The distance of two neighbours at `value` in a kind with `digits` bits after the first one.
    fn unit(value: f64, digits: i32, smallest: i32) -> f64 {
        2f64.powi((value.abs().log2().floor() as i32).max(smallest) - digits)
    }

    #[test]
    fn every_value_is_within_a_unit_of_float64_however_much_cancels() {
        // The second side is minus the first over ρ, give or take a few units: all of it cancels.
        let factors =
            [(0.731_058_578_6, 0.268_941_421_4), (0.2, 0.85), (0.513, 0.513), (0.97, 3e-5)];
        for (kind, digits, smallest) in [(TorchKind::BFloat16, 7, -126), (TorchKind::Half, 10, -14)]
        {
            for (s0, s1) in factors {
                let a: Vec<f32> = (0..4096).map(|i| 1.0 + (i as f32) / 4096.0).collect();
                let a = tensor(&a, kind);
                let b = -(&a * (s0 / s1));
                let nudge: Vec<f32> = (0..4096).map(|i| (i % 7 - 3) as f32).collect();
                let nudge = Tensor::from_slice(&nudge);
                let nudge: Tensor = nudge * 2f64.powi(-digits - 1) + 1.0;
                let b = (b.to_kind(TorchKind::Float) * nudge).to_kind(kind);
                let exact = a.to_kind(TorchKind::Double) * s0 + b.to_kind(TorchKind::Double) * s1;
                let exact: Vec<f64> = Vec::try_from(exact).unwrap();
                for large in [false, true] {
                    for (found, exact) in blend(&a, &b, (s0, s1), large).iter().zip(&exact) {
                        // Terms are at most 2; 2⁻³⁶ of one is the low part's rounding.
                        let allowed = unit(*exact, digits, smallest) + 2f64.powi(-35);
                        assert!((found - exact).abs() <= allowed, "{found:e} for {exact:e}");
                    }
                }
            }
        }
    }

    #[test]
    fn opposite_values_leave_nothing_half_way() {
        let a = tensor(&[0.013_671_875, -3.0], TorchKind::BFloat16);
        for large in [false, true] {
            let found = blend(&a, &a.neg(), (0.503_123_456_7, 0.503_123_456_7), large);
            assert_eq!(found, [0.0, 0.0]);
        }
    }

    #[test]
    fn products_with_short_factors_cancel_to_nothing() {
        let a = tensor(&[1.0, 0.003_906_25], TorchKind::BFloat16);
        let b: Tensor = &a * -3.0;
        for large in [false, true] {
            assert_eq!(blend(&a, &b, (0.75, 0.25), large), [0.0, 0.0]);
        }
    }

    #[test]
    fn a_blend_is_rounded_once() {
        let a = tensor(&[1.0, 1.0], TorchKind::Half);
        let b = tensor(&[1.000_976_6, 3.0], TorchKind::Half);
        // 0.25 + 0.75·(1 + 2⁻¹⁰) = 1 + 0.75·2⁻¹⁰ rounds to 1 + 2⁻¹⁰.
        assert_eq!(blend(&a, &b, (0.25, 0.75), false), [1.0 + 2f64.powi(-10), 2.5]);
    }

    #[test]
    fn values_whose_sum_is_beyond_float32_have_a_mean() {
        let a = tensor(&[3e38], TorchKind::BFloat16);
        assert!(blend(&a, &a, (0.5, 0.5), true)[0].is_finite());
    }

    #[test]
    fn sums_of_any_length_are_those_of_float64() {
        for numel in [1usize, 255, 256, 257, 5000, PIECE - 1, PIECE] {
            let count = to_i64(numel).unwrap();
            let a = Tensor::randn([count], (TorchKind::Float, tch::Device::Cpu));
            let (a, b) = (a.to_kind(TorchKind::Half), (&a * 0.5 + 0.25).to_kind(TorchKind::Half));
            let mut kernel = Kernel::new().unwrap();
            let piece = kernel.widen(&a, &b, false).unwrap();
            let sums = kernel.sums(&piece).unwrap();
            let (a, b) = (a.to_kind(TorchKind::Double), b.to_kind(TorchKind::Double));
            let of = |x: &Tensor, y: &Tensor| f64::try_from(x.dot(y)).unwrap();
            let scale = (of(&a, &a) * of(&b, &b)).sqrt();
            for (found, exact) in
                [(sums.dot, of(&a, &b)), (sums.a_squared, of(&a, &a)), (sums.b_squared, of(&b, &b))]
            {
                assert!(
                    (found - exact).abs() <= 3e-7 * scale.max(exact),
                    "{numel}: {found} {exact}"
                );
            }
        }
    }
}

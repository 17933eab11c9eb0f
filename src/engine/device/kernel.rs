//! Sums and blends a chunk on a device.
//!
//! Everything is float64, and every operation rounds each element once, by itself: products, sums of
//! two, conversions. Sums over a piece are taken by folding its second half onto its first until one
//! element is left. So the order of every addition is fixed, and the bits of the result do not
//! depend on the device, on how many pieces are computed at once or on who computes them.

use tch::{Kind as TorchKind, Tensor};

use crate::engine::device::memory::{Block, Places};
use crate::engine::device::trouble::{Attempt, DeviceResult};
use crate::engine::torch::buffer::Buffer;
use crate::engine::torch::calls::to_i64;
use crate::engine::torch::ops::{PIECE, round_into, rounds_twice};
use crate::merge::Sums;

/// Scratch for chunks, in a block.
pub(crate) struct Kernel<'b> {
    pub(crate) block: &'b Block,
    pub(crate) places: Places,
}

impl Kernel<'_> {
    /// a·b, ‖a‖² and ‖b‖² of each piece of a chunk. `host` takes 3·pieces float64.
    pub(crate) fn sums(&self, a: &Tensor, b: &Tensor, host: &mut Buffer) -> Attempt<Vec<Sums>> {
        let numel = a.numel();
        let pieces = numel.div_ceil(PIECE);
        let (rows, piece) = (to_i64(pieces)?, to_i64(PIECE)?);
        let a = self.widen(0, a, pieces * PIECE)?;
        let b = self.widen(1, b, pieces * PIECE)?;
        let products = self
            .block
            .view(self.places.products, TorchKind::Double, 3 * pieces * PIECE)?
            .f_view([3, rows * piece])
            .or_trouble("take a view")?;
        for (row, (left, right)) in [(&a, &b), (&a, &a), (&b, &b)].into_iter().enumerate() {
            let out = products.f_select(0, to_i64(row)?).or_trouble("take a view")?;
            let _ = left.f_mul_out(&out, right).or_trouble("multiply")?;
        }
        let products = products.f_view([3, rows, piece]).or_trouble("take a view")?;
        let mut width = piece;
        while width > 1 {
            width /= 2;
            let mut left = products.f_narrow(2, 0, width).or_trouble("take a view")?;
            let right = products.f_narrow(2, width, width).or_trouble("take a view")?;
            let _ = left.f_add_(&right).or_trouble("add")?;
        }
        // Packed on the device first, so that the copy down needs no memory of its own.
        let mut packed = self
            .block
            .view(self.places.sums, TorchKind::Double, 3 * pieces)?
            .f_view([3, rows])
            .or_trouble("take a view")?;
        let folded = products.f_select(2, 0).or_trouble("take a view")?;
        packed.f_copy_(&folded).or_trouble("copy")?;
        let mut down = host
            .view(0, TorchKind::Double, 3 * pieces)?
            .f_view([3, rows])
            .or_trouble("take a view")?;
        down.f_copy_(&packed).or_trouble("copy from the device")?;
        let value = |position: usize| -> f64 {
            let bytes = host.bytes().get(position * 8..).and_then(|rest| rest.first_chunk());
            bytes.map_or(f64::NAN, |bytes| f64::from_le_bytes(*bytes))
        };
        let sums = (0..pieces).map(|piece| Sums {
            dot: value(piece),
            a_squared: value(pieces + piece),
            b_squared: value(2 * pieces + piece),
        });
        Ok(sums.collect())
    }

    /// out = s0·a + s1·b, rounded to nearest even in the dtype of `out`.
    pub(crate) fn blend(
        &self,
        a: &Tensor,
        b: &Tensor,
        (s0, s1): (f64, f64),
        out: &mut Tensor,
    ) -> Attempt<()> {
        let mut sum = self.widen(0, a, a.numel())?;
        let mut term = self.widen(1, b, b.numel())?;
        let _ = sum.f_mul_scalar_(s0).or_trouble("scale")?;
        let _ = term.f_mul_scalar_(s1).or_trouble("scale")?;
        let _ = sum.f_add_(&term).or_trouble("add")?;
        self.round_into(out, &sum)
    }

    /// out = a, rounded to nearest even.
    pub(crate) fn copy(&self, a: &Tensor, out: &mut Tensor) -> Attempt<()> {
        if !rounds_twice(a.kind(), out.kind()) {
            return out.f_copy_(a).or_trouble("copy");
        }
        self.round_into(out, &self.widen(0, a, a.numel())?)
    }

    fn round_into(&self, out: &mut Tensor, wide: &Tensor) -> Attempt<()> {
        // A blend needs no products.
        let low = self.block.view(self.places.products, TorchKind::Double, wide.numel())?;
        round_into(out, wide, &low).or_trouble("convert")
    }

    /// A chunk in float64, zeros behind it up to `length`.
    fn widen(&self, side: usize, source: &Tensor, length: usize) -> Attempt<Tensor> {
        let start = side * self.places.chunk() * size_of::<f64>();
        let wide = self.block.view(start, TorchKind::Double, length)?;
        let numel = source.numel();
        let mut head = wide.f_narrow(0, 0, to_i64(numel)?).or_trouble("take a view")?;
        head.f_copy_(source).or_trouble("convert")?;
        if numel < length {
            let mut rest = wide
                .f_narrow(0, to_i64(numel)?, to_i64(length - numel)?)
                .or_trouble("take a view")?;
            let _ = rest.f_zero_().or_trouble("fill")?;
        }
        Ok(wide)
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// Sums of a chunk of these elements, `pieces` at once.
    fn sums(a: &[f64], b: &[f64], pieces: usize, kind: TorchKind) -> Vec<Sums> {
        let places = Places::new(pieces, 8);
        let block = Block::new(places.kept, Device::Cpu, None).unwrap();
        let mut host = Buffer::new(3 * pieces * 8).unwrap();
        let kernel = Kernel { block: &block, places };
        let chunks = a.chunks(places.chunk()).zip(b.chunks(places.chunk()));
        let tensor = |values: &[f64]| Tensor::from_slice(values).to_kind(kind);
        chunks.flat_map(|(a, b)| kernel.sums(&tensor(a), &tensor(b), &mut host).unwrap()).collect()
    }

    fn values(numel: usize, seed: u64) -> Vec<f64> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f64 / 8_388_608.0 - 1.0
        };
        (0..numel).map(|_| next()).collect()
    }

    #[test]
    fn sums_are_those_worked_by_hand() {
        let found = sums(&[1.0, 2.0, 3.0], &[4.0, -5.0, 6.0], 2, TorchKind::BFloat16);
        assert_eq!(found, [Sums { dot: 12.0, a_squared: 14.0, b_squared: 77.0 }]);
    }

    #[test]
    fn sums_have_the_same_bits_however_many_pieces_are_taken_at_once() {
        let numel = 5 * PIECE + 12_345;
        let (a, b) = (values(numel, 1), values(numel, 2));
        let one = sums(&a, &b, 1, TorchKind::Float);
        assert_eq!(one.len(), 6);
        for pieces in [2, 4, 32] {
            assert_eq!(sums(&a, &b, pieces, TorchKind::Float), one);
        }
        let float = |value: f64| f64::from(value as f32);
        let exact: f64 = a.iter().zip(&b).map(|(a, b)| float(*a) * float(*b)).sum();
        let found: f64 = one.iter().map(|sums| sums.dot).sum();
        assert!((found - exact).abs() < 1e-9, "{found} {exact}");
    }

    #[test]
    fn one_nan_makes_the_sums_of_its_piece_nan() {
        let mut a = vec![1.0; PIECE + 5];
        a[PIECE + 3] = f64::NAN;
        let found = sums(&a, &a, 2, TorchKind::Half);
        assert!(found[0].is_finite() && !found[1].is_finite());
    }

    #[test]
    fn a_blend_is_that_of_float64() {
        let places = Places::new(2, 8);
        let block = Block::new(places.kept, Device::Cpu, None).unwrap();
        let kernel = Kernel { block: &block, places };
        let a = Tensor::from_slice(&[1.0f32, 1.0, -0.0]).to_kind(TorchKind::Half);
        let b = Tensor::from_slice(&[1.000_976_6f32, 3.0, -0.0]).to_kind(TorchKind::Half);
        let mut out = block.view(places.child, TorchKind::Half, 3).unwrap();
        kernel.blend(&a, &b, (0.25, 0.75), &mut out).unwrap();
        let found: Vec<f64> = Vec::try_from(out.to_kind(TorchKind::Double)).unwrap();
        assert_eq!(found, [1.000_976_562_5, 2.5, 0.0]);
        assert!(found[2].is_sign_negative());
    }
}

//! Spot-checks a device: recomputes the sums of the last piece of every scanned span, and the last
//! 8,192 elements of every span whose end is blended, on the CPU with the same operations, and
//! fails the merge if they differ by more than rounding.
//!
//! Neither the link nor the GPU's memory has a checksum that this program sees: a device that
//! computes wrongly, or a copy that was not waited for, shows here.

use tch::{Device, Kind as TorchKind, Tensor};

use crate::engine::device::kernel::Kernel;
use crate::engine::device::memory::{Block, Places};
use crate::engine::device::trouble::{Attempt, Trouble};
use crate::engine::torch::buffer::Buffer;
use crate::engine::torch::calls::{TorchResult, torch_error};
use crate::error::{Error, Kind};
use crate::merge::Sums;

/// How far a device's sums may be from the CPU's, as a part of ‖a‖² + ‖b‖².
const SUMS_APART: f64 = 1e-9;

/// How far a device's value may be from the CPU's, as a part of the piece's largest, where terms
/// cancel and a unit in the last place is next to nothing.
const VALUES_APART: f64 = 1e-12;

/// The CPU's scratch for one piece.
pub(crate) struct Checker {
    block: Block,
    places: Places,
    sums: Buffer,
}

impl Checker {
    pub(crate) fn new() -> Attempt<Checker> {
        let places = Places::new(1, 8);
        let block = Block::new(places.kept, Device::Cpu, None)?;
        Ok(Checker { block, places, sums: Buffer::new(3 * size_of::<f64>())? })
    }

    fn kernel(&self) -> Kernel<'_> {
        Kernel { block: &self.block, places: self.places }
    }

    /// Whether the sums of a piece are the CPU's.
    pub(crate) fn check_sums(&mut self, a: &Tensor, b: &Tensor, found: &Sums) -> Attempt<()> {
        let kernel = Kernel { block: &self.block, places: self.places };
        let expected = kernel.sums(a, b, &mut self.sums)?;
        let Some(expected) = expected.first() else { return Ok(()) };
        let allowed = SUMS_APART * (expected.a_squared + expected.b_squared);
        let apart = [
            found.dot - expected.dot,
            found.a_squared - expected.a_squared,
            found.b_squared - expected.b_squared,
        ];
        // NaN and Inf have their own refusal.
        if expected.is_finite() && !apart.iter().all(|apart| apart.abs() <= allowed) {
            return Err(wrong("sums").into());
        }
        Ok(())
    }

    /// Whether the elements of a piece are within one unit in the last place of the CPU's.
    pub(crate) fn check_blend(
        &self,
        a: &Tensor,
        b: &Tensor,
        factors: (f64, f64),
        found: &Tensor,
    ) -> Attempt<()> {
        let kind = found.kind();
        let mut expected = self.block.view(self.places.child, kind, found.numel())?;
        self.kernel().blend(a, b, factors, &mut expected)?;
        let (units, expected_units) = (places_in_order(found)?, places_in_order(&expected)?);
        let (values, expected) = (values(found)?, values(&expected)?);
        let finite = expected.iter().filter(|value| value.is_finite());
        let largest = finite.fold(0.0, |largest: f64, value| largest.max(value.abs()));
        let mut pairs = units.iter().zip(&expected_units).zip(values.iter().zip(&expected));
        let apart = pairs.any(|((unit, expected_unit), (value, expected))| {
            let near = (value - expected).abs() <= VALUES_APART * largest;
            // NaN and Inf have their own refusal.
            expected.is_finite() && unit.abs_diff(*expected_unit) > 1 && !near
        });
        if apart { Err(wrong("values").into()) } else { Ok(()) }
    }
}

fn wrong(what: &str) -> Error {
    Error::new(Kind::Io, format!("the GPU computed wrong {what}: the CPU has others"))
        .with_hint("nothing of this child is left; merge with --device cpu, and test that GPU")
}

fn values(tensor: &Tensor) -> Attempt<Vec<f64>> {
    let wide = tensor.f_to_kind(TorchKind::Double).or_torch("convert")?;
    Ok(Vec::try_from(wide).or_torch("read values")?)
}

/// Where each element stands in the order of all values of its dtype; neighbours are one apart.
fn places_in_order(tensor: &Tensor) -> std::result::Result<Vec<i64>, Trouble> {
    let item = tensor.kind().elt_size_in_bytes();
    let kind = match item {
        1 => TorchKind::Int8,
        2 => TorchKind::Int16,
        4 => TorchKind::Int,
        8 => TorchKind::Int64,
        _ => return Err(torch_error("no floating dtype has such elements").into()),
    };
    let bits = tensor.f_view_dtype(kind).or_torch("take a view")?;
    let bits = bits.f_to_kind(TorchKind::Int64).or_torch("convert")?;
    let bits: Vec<i64> = Vec::try_from(bits).or_torch("read values")?;
    let lowest = i64::MIN >> (64 - 8 * item);
    // Negative floats are sign and magnitude: -0.0 is the lowest integer.
    Ok(bits.into_iter().map(|bits| if bits < 0 { lowest - bits } else { bits }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unit_is_allowed_and_two_are_not() {
        let checker = Checker::new().unwrap();
        let half = |values: &[f64]| Tensor::from_slice(values).to_kind(TorchKind::Half);
        let (a, b) = (half(&[1.0, -1.0, 0.0]), half(&[1.0, -1.0, 0.0]));
        let check = |found: &[f64]| checker.check_blend(&a, &b, (0.5, 0.5), &half(found));
        let unit = 2f64.powi(-10);
        assert!(check(&[1.0, -1.0, -0.0]).is_ok());
        assert!(check(&[1.0 + unit, -1.0 - unit, 6e-8]).is_ok());
        assert!(check(&[1.0 + 2.0 * unit, -1.0, 0.0]).is_err());
        assert!(check(&[1.0, 1.0, 0.0]).is_err());
    }

    #[test]
    fn sums_that_are_a_little_off_are_wrong() {
        let mut checker = Checker::new().unwrap();
        let (a, b) = (Tensor::from_slice(&[1f32, 2.0]), Tensor::from_slice(&[3f32, 4.0]));
        let good = Sums { dot: 11.0, a_squared: 5.0, b_squared: 25.0 };
        assert!(checker.check_sums(&a, &b, &good).is_ok());
        assert!(checker.check_sums(&a, &b, &Sums { dot: 11.000_001, ..good }).is_err());
    }
}

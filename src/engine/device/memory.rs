//! Lays out a worker's share of a device's memory, one block that is allocated once.

use std::sync::Arc;

use tch::{Device, Kind as TorchKind, Tensor};

use crate::engine::device::trouble::{Attempt, DeviceResult};
use crate::engine::faults::Faults;
use crate::engine::torch::calls::to_i64;
use crate::engine::torch::ops::PIECE;

/// Pieces that are copied and computed at once: 2 M elements, 4 MiB of a 16-bit tensor.
pub(crate) const MOST_PIECES: usize = 32;

/// Pieces at once after four halvings.
pub(crate) const FEWEST_PIECES: usize = MOST_PIECES >> 4;

/// Places in the block are multiples of this many bytes.
const ALIGN: usize = 512;

/// Where things are in the block, in bytes from its start.
///
/// ```text
/// | wide a | wide b | products aa, ab, bb | sums | child | raw a | raw b | kept a, kept b ... |
///   8·n      8·n      24·n                 ≤ ALIGN·k      item·n each     the rest
/// ```
/// with n elements in a chunk; the first four are float64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    /// Pieces in a chunk.
    pub(crate) pieces: usize,
    pub(crate) products: usize,
    pub(crate) sums: usize,
    pub(crate) child: usize,
    pub(crate) raw: [usize; 2],
    pub(crate) kept: usize,
}

impl Places {
    /// For chunks of `pieces` whose elements have up to `item` bytes, in parents and child.
    pub(crate) fn new(pieces: usize, item: usize) -> Places {
        let chunk = pieces * PIECE;
        let products = 2 * chunk * size_of::<f64>();
        let sums = products + 3 * chunk * size_of::<f64>();
        let child = sums + (3 * pieces * size_of::<f64>()).next_multiple_of(ALIGN);
        let raw = child + chunk * item;
        Places {
            pieces,
            products,
            sums,
            child,
            raw: [raw, raw + chunk * item],
            kept: raw + 2 * chunk * item,
        }
    }

    /// Elements of a chunk.
    pub(crate) fn chunk(&self) -> usize {
        self.pieces * PIECE
    }
}

/// Bytes of both sides of a tensor where they are kept in the block.
pub(crate) fn kept_places(numel: usize, items: [usize; 2]) -> Option<([usize; 2], usize)> {
    let first = numel.checked_mul(items[0])?.checked_next_multiple_of(ALIGN)?;
    let second = numel.checked_mul(items[1])?.checked_next_multiple_of(ALIGN)?;
    Some(([0, first], first.checked_add(second)?))
}

/// The block.
#[derive(Debug)]
pub(crate) struct Block {
    bytes: Tensor,
    len: usize,
}

impl Block {
    /// Takes `len` bytes of a device.
    pub(crate) fn new(len: usize, device: Device, faults: Option<&Arc<Faults>>) -> Attempt<Block> {
        if let Some(faults) = faults {
            faults.allocate().or_trouble("allocate")?;
        }
        let options = (TorchKind::Uint8, device);
        let bytes = Tensor::f_empty([to_i64(len)?], options).or_trouble("allocate")?;
        Ok(Block { bytes, len })
    }

    /// Its bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// `numel` elements of `kind` from byte `start` on.
    pub(crate) fn view(&self, start: usize, kind: TorchKind, numel: usize) -> Attempt<Tensor> {
        let length = numel.saturating_mul(kind.elt_size_in_bytes());
        let (start, length) = (to_i64(start)?, to_i64(length)?);
        let bytes = self.bytes.f_narrow(0, start, length).or_trouble("take a view")?;
        bytes.f_view_dtype(kind).or_trouble("take a view")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_follow_each_other_without_overlap() {
        let places = Places::new(2, 4);
        let n = 2 * PIECE;
        assert_eq!(places.products, 16 * n);
        assert_eq!(places.sums, 40 * n);
        assert_eq!(places.child, 40 * n + 512);
        assert_eq!(places.raw, [44 * n + 512, 48 * n + 512]);
        assert_eq!(places.kept, 52 * n + 512);
        assert_eq!(kept_places(3, [2, 4]), Some(([0, 512], 1024)));
        assert_eq!(kept_places(usize::MAX, [2, 2]), None);
    }
}

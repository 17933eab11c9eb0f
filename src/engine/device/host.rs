//! Host memory of a device's worker: the parents' chunks are read into it and copied to the device; sums
//! are copied back to it.

use tch::{Device, Tensor};

use crate::engine::device::memory::Places;
use crate::engine::read::slot::{Digests, Slot};
use crate::engine::read::source::Source;
use crate::engine::task::tensor_task::Task;
use crate::engine::torch::buffer::Buffer;
use crate::engine::torch::calls::torch_error;
use crate::engine::torch::ops::{PIECE, computed_kind};
use crate::error::Result;

/// Host buffers of one worker, page-locked where the device is a GPU, taken once.
pub(crate) struct HostBuffers {
    /// A chunk of the primary and of the secondary.
    sides: Slot,
    /// Sums of a chunk's pieces.
    pub(crate) sums: Buffer,
}

/// A chunk of both sides in host memory.
pub(crate) struct Chunk {
    /// Elements, in each side's dtype.
    pub(crate) views: [Tensor; 2],
    /// Per piece, whether both sides have the child's dtype and are equal to the bit.
    pub(crate) equal: Vec<bool>,
}

/// Both sides of a task that merges.
pub(crate) fn sources<'t, 'a>(task: &'t Task<'a>) -> Result<[&'t Source<'a>; 2]> {
    match task.sides() {
        [Some(a), Some(b)] => Ok([a, b]),
        _ => Err(torch_error("a merged tensor lacks a side").tensor(&task.plan.name)),
    }
}

impl HostBuffers {
    /// For chunks of `places` whose elements have up to `item` bytes.
    pub(crate) fn new(places: &Places, item: usize, device: Device) -> Result<HostBuffers> {
        let bytes = places.chunk() * item;
        Ok(HostBuffers {
            sides: Slot::pinned(bytes, device)?,
            sums: Buffer::pinned(3 * places.pieces * size_of::<f64>(), device)?,
        })
    }

    /// `length` elements of both sides from element `start` of what was loaded last.
    pub(crate) fn sides(
        &self,
        task: &Task<'_>,
        start: usize,
        length: usize,
    ) -> Result<[Tensor; 2]> {
        let [a, b] = sources(task)?;
        let view = |lane: usize, source: &Source<'_>| {
            let kind = computed_kind(source.tensor.dtype)?;
            self.sides.view_at(lane, start * source.item_bytes(), (kind, length))
        };
        Ok([view(0, a)?, view(1, b)?])
    }

    /// Reads a chunk of both sides into the lanes, rows that a side lacks filled in.
    pub(crate) fn load(
        &mut self,
        task: &Task<'_>,
        start: u64,
        numel: usize,
        digests: &mut Digests,
    ) -> Result<Chunk> {
        let sources = sources(task)?;
        self.sides.load(task.sides(), (start, numel), digests)?;
        let views = self.sides(task, 0, numel)?;
        let comparable = sources.iter().all(|source| source.tensor.dtype == task.plan.dtype);
        let length = numel * sources[0].item_bytes();
        let equal = if comparable {
            let [a, b] = [0, 1].map(|lane| self.sides.bytes(lane, length));
            let piece_bytes = PIECE * sources[0].item_bytes();
            a.chunks(piece_bytes).zip(b.chunks(piece_bytes)).map(|(a, b)| a == b).collect()
        } else {
            vec![false; numel.div_ceil(PIECE)]
        };
        Ok(Chunk { views, equal })
    }
}

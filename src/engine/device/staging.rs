//! The host's side of the link: what goes up is read here, what came down is written from here.

use tch::{Device, Tensor};

use crate::checkpoint::Side;
use crate::engine::device::memory::Places;
use crate::engine::read::slot::Digests;
use crate::engine::read::source::Source;
use crate::engine::task::tensor_task::Task;
use crate::engine::torch::buffer::Buffer;
use crate::engine::torch::calls::{TorchResult, torch_error};
use crate::engine::torch::ops::{PIECE, computed_kind};
use crate::error::Result;

/// Host buffers of one worker, page-locked where the device is a GPU, taken once.
pub(crate) struct Staging {
    /// A chunk of the primary and of the secondary.
    pub(crate) lanes: [Buffer; 2],
    /// A chunk of a child.
    pub(crate) child: Buffer,
    /// Sums of a chunk's pieces.
    pub(crate) sums: Buffer,
}

/// A chunk of both sides in the lanes.
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

impl Staging {
    /// For chunks of `places` whose elements have up to `item` bytes.
    pub(crate) fn new(places: &Places, item: usize, device: Device) -> Result<Staging> {
        let bytes = places.chunk() * item;
        Ok(Staging {
            lanes: [Buffer::pinned(bytes, device)?, Buffer::pinned(bytes, device)?],
            child: Buffer::pinned(bytes, device)?,
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
            self.lanes[lane].view(start * source.item_bytes(), kind, length)
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
        let views = self.sides(task, 0, numel)?;
        // The longer side first: the shorter one's new rows may be taken from it.
        let short = task.plan.extension.map(|extension| extension.side);
        let order = if short == Some(Side::Primary) { [1, 0] } else { [0, 1] };
        for lane in order {
            let source = sources[lane];
            let (first, own) = source.own(start, numel);
            let piece_bytes = PIECE * source.item_bytes();
            let own_bytes = &mut self.lanes[lane].bytes_mut()[..own * source.item_bytes()];
            // Piece by piece, so that the digest finds the bytes in the core's cache.
            for (number, piece) in own_bytes.chunks_mut(piece_bytes).enumerate() {
                source.read(first + (number * PIECE) as u64, piece)?;
                digests.0[lane].update(piece);
            }
            if own == numel {
                continue;
            }
            let Some(filler) = &source.filler else {
                return Err(torch_error("a tensor is shorter than planned").tensor(&task.plan.name));
            };
            let item = source.item_bytes();
            let bytes = &mut self.lanes[lane].bytes_mut()[..numel * item];
            filler.places().spread(bytes, (start, numel), item);
            for run in filler.places().added(start, numel) {
                let mut rows = part(&views[lane], run.start, run.len())?;
                let other = part(&views[1 - lane], run.start, run.len())?;
                filler.fill(start + run.start as u64, &mut rows, Some(&other))?;
            }
        }
        let comparable = sources.iter().all(|source| source.tensor.dtype == task.plan.dtype);
        let length = numel * sources[0].item_bytes();
        let equal = if comparable {
            let [a, b] = [0, 1].map(|lane| &self.lanes[lane].bytes()[..length]);
            let piece_bytes = PIECE * sources[0].item_bytes();
            a.chunks(piece_bytes).zip(b.chunks(piece_bytes)).map(|(a, b)| a == b).collect()
        } else {
            vec![false; numel.div_ceil(PIECE)]
        };
        Ok(Chunk { views, equal })
    }
}

/// `length` elements from `start` on.
pub(crate) fn part(flat: &Tensor, start: usize, length: usize) -> Result<Tensor> {
    let too_large = |_| torch_error("chunk is too large");
    let start = i64::try_from(start).map_err(too_large)?;
    let length = i64::try_from(length).map_err(too_large)?;
    flat.f_narrow(0, start, length).or_torch("take a view")
}

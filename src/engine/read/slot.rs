//! Memory for one piece of both parents (`Slot`), and the slots that keep pieces between the two
//! passes (`Keep`).

use std::sync::{Mutex, MutexGuard, PoisonError};

use tch::{Device, Kind as TorchKind, Tensor};

use crate::engine::read::mapped_rows::MappedRun;
use crate::engine::read::source::Source;
use crate::engine::torch::buffer::Buffer;
use crate::engine::torch::calls::{torch_error, torch_kind};
use crate::engine::torch::ops::{PIECE, part};
use crate::error::{Error, Result};
use crate::tensor::{Crc, RunningCrc};

/// Running CRCs of what is read of both sides.
pub(crate) struct Digests([RunningCrc; 2]);

impl Digests {
    pub(crate) fn new() -> Digests {
        Digests([RunningCrc::new(), RunningCrc::new()])
    }

    pub(crate) fn crcs(&self) -> [Crc; 2] {
        [self.0[0].crc(), self.0[1].crc()]
    }
}

/// Both sides of a tensor, primary first, where it has them.
pub(crate) type Sides<'s, 'a> = [Option<&'s Source<'a>>; 2];

/// Consecutive elements of the primary and of the secondary.
#[derive(Debug)]
pub(crate) struct Slot {
    lanes: [Lane; 2],
}

#[derive(Debug)]
struct Lane {
    buffer: Buffer,
    /// The view that was asked for last: making one costs as much as some of the arithmetic.
    view: Option<(TorchKind, usize, Tensor)>,
}

impl Slot {
    /// For a piece of elements of up to `item` bytes.
    pub(crate) fn new(item: usize) -> Result<Slot> {
        Slot::pinned(PIECE * item, Device::Cpu)
    }

    /// For up to `bytes` of each side; page-locked where the device is a GPU.
    pub(crate) fn pinned(bytes: usize, device: Device) -> Result<Slot> {
        let lane =
            || -> Result<Lane> { Ok(Lane { buffer: Buffer::pinned(bytes, device)?, view: None }) };
        Ok(Slot { lanes: [lane()?, lane()?] })
    }

    /// Reads `numel` elements of both sides from `start` on, rows that a side lacks filled in.
    pub(crate) fn load(
        &mut self,
        sides: Sides<'_, '_>,
        (start, numel): (u64, usize),
        digests: &mut Digests,
    ) -> Result<()> {
        let mut lacked: [Vec<MappedRun>; 2] = [Vec::new(), Vec::new()];
        for (lane, source) in sides.into_iter().enumerate() {
            let Some(source) = source else { continue };
            let item = source.item_bytes();
            for run in source.runs(start, numel)? {
                let Some(from) = run.from else {
                    lacked[lane].push(run);
                    continue;
                };
                let bytes = self.bytes_mut(lane, numel * item);
                let bytes = bytes.get_mut(run.range.start * item..run.range.end * item);
                // Piece by piece, so that the digest finds the bytes in the core's cache.
                let pieces = bytes.unwrap_or_default().chunks_mut(PIECE * item);
                for (number, piece) in pieces.enumerate() {
                    source.read(from + (number * PIECE) as u64, piece)?;
                    digests.0[lane].update(piece);
                }
            }
        }
        // When both are read: the rows that one lacks may be the other's.
        for (lane, lacked) in lacked.into_iter().enumerate() {
            if !lacked.is_empty() {
                self.fill(sides, lane, numel, lacked)?;
            }
        }
        Ok(())
    }

    /// Computes the rows that a side lacks.
    fn fill(
        &mut self,
        sides: Sides<'_, '_>,
        lane: usize,
        numel: usize,
        lacked: Vec<MappedRun>,
    ) -> Result<()> {
        let short = || torch_error("a tensor is shorter than planned");
        let source = sides[lane].ok_or_else(short)?;
        let named = |error: Error| error.tensor(&source.tensor.name);
        let filler = source.filler.as_ref().ok_or_else(|| named(short()))?;
        let views = self.views(sides, numel)?;
        let view = views[lane].as_ref().ok_or_else(|| named(short()))?;
        for MappedRun { range, block, missing, .. } in lacked {
            let added = |view: &Tensor| part(view, range.start, range.len());
            let other = views[1 - lane].as_ref().map(added).transpose()?;
            filler.fill((block, missing), &mut added(view)?, other.as_ref())?;
        }
        Ok(())
    }

    /// The first `numel` elements of each side, as torch sees them; `None` where there is no side, or
    /// torch has no kind for its dtype.
    pub(crate) fn views(
        &mut self,
        sides: Sides<'_, '_>,
        numel: usize,
    ) -> Result<[Option<Tensor>; 2]> {
        let mut views = [None, None];
        for (lane, side) in sides.into_iter().enumerate() {
            if let Some(kind) = side.and_then(|source| torch_kind(source.tensor.dtype)) {
                views[lane] = Some(self.view(lane, kind, numel)?);
            }
        }
        Ok(views)
    }

    /// The first `numel` elements of a side.
    fn view(&mut self, lane: usize, kind: TorchKind, numel: usize) -> Result<Tensor> {
        let Lane { buffer, view } = &mut self.lanes[lane];
        match view {
            Some((known, length, tensor)) if (*known, *length) == (kind, numel) => {
                Ok(tensor.shallow_clone())
            }
            _ => {
                let tensor = buffer.view(0, kind, numel)?;
                *view = Some((kind, numel, tensor.shallow_clone()));
                Ok(tensor)
            }
        }
    }

    /// `numel` elements of a side from byte `start` on.
    pub(crate) fn view_at(
        &self,
        lane: usize,
        start: usize,
        (kind, numel): (TorchKind, usize),
    ) -> Result<Tensor> {
        self.lanes[lane].buffer.view(start, kind, numel)
    }

    /// The first bytes of a side.
    pub(crate) fn bytes(&self, lane: usize, length: usize) -> &[u8] {
        self.lanes[lane].buffer.bytes().get(..length).unwrap_or_default()
    }

    /// The first bytes of a side, to be read into.
    fn bytes_mut(&mut self, lane: usize, length: usize) -> &mut [u8] {
        self.lanes[lane].buffer.bytes_mut().get_mut(..length).unwrap_or_default()
    }
}

/// The slots in which all workers together keep pieces from pass one to pass two. A piece that gets
/// none is read again.
#[derive(Debug)]
pub(crate) struct Keep {
    state: Mutex<State>,
    item: usize,
}

#[derive(Debug)]
struct State {
    free: Vec<Slot>,
    /// Slots that may still be made.
    left: u64,
}

impl Keep {
    /// As many slots as fit into `bytes`, for elements of up to `item` bytes.
    pub(crate) fn new(bytes: u64, item: usize) -> Keep {
        let item = item.max(1);
        let slot = (2 * PIECE * item) as u64;
        Keep { state: Mutex::new(State { free: Vec::new(), left: bytes / slot }), item }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot, where one is left.
    ///
    /// # Errors
    /// [`Kind::Resource`](crate::error::Kind::Resource) where there is no memory for it.
    pub(crate) fn take(&self) -> Result<Option<Slot>> {
        let mut state = self.lock();
        if let Some(slot) = state.free.pop() {
            return Ok(Some(slot));
        }
        if state.left == 0 {
            return Ok(None);
        }
        state.left -= 1;
        drop(state);
        Slot::new(self.item).map(Some)
    }

    /// Takes back a slot whose piece is written.
    pub(crate) fn give_back(&self, slot: Slot) {
        self.lock().free.push(slot);
    }
}

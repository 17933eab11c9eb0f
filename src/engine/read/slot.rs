//! Memory for a piece of both sides; what is kept of a tensor between the two passes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tch::{Kind as TorchKind, Tensor};

use crate::engine::torch::buffer::Buffer;
use crate::engine::torch::ops::PIECE;
use crate::error::Result;
use crate::tensor::{Crc, RunningCrc};

/// Running CRCs of what is read of both sides.
pub(crate) struct Digests(pub(crate) [RunningCrc; 2]);

impl Digests {
    pub(crate) fn new() -> Digests {
        Digests([RunningCrc::new(), RunningCrc::new()])
    }

    pub(crate) fn spans(&self) -> [Crc; 2] {
        [self.0[0].crc(), self.0[1].crc()]
    }
}

/// A piece of the primary and of the secondary.
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
    /// For elements of up to `item` bytes.
    pub(crate) fn new(item: usize) -> Result<Slot> {
        let lane =
            || -> Result<Lane> { Ok(Lane { buffer: Buffer::new(PIECE * item)?, view: None }) };
        Ok(Slot { lanes: [lane()?, lane()?] })
    }

    /// The first `numel` elements of a side, as torch sees them.
    pub(crate) fn view(&mut self, lane: usize, kind: TorchKind, numel: usize) -> Result<Tensor> {
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

    /// The first bytes of a side.
    pub(crate) fn bytes(&self, lane: usize, length: usize) -> &[u8] {
        self.lanes[lane].buffer.bytes().get(..length).unwrap_or_default()
    }

    /// The first bytes of a side, to be read into.
    pub(crate) fn bytes_mut(&mut self, lane: usize, length: usize) -> &mut [u8] {
        self.lanes[lane].buffer.bytes_mut().get_mut(..length).unwrap_or_default()
    }
}

/// The slots in which all workers together keep pieces from the first pass to the second. What finds
/// no slot is read again.
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

//! `Block`: aligned memory for a child's bytes on their way from a worker to the file.

use tch::{Device, Kind as TorchKind, Tensor};

use crate::checkpoint::DIRECT_ALIGNMENT;
use crate::engine::torch::buffer::Buffer;
use crate::engine::torch::ops::part;
use crate::error::Result;

/// Memory for consecutive bytes of a child, aligned as direct I/O wants it.
#[derive(Debug)]
pub(crate) struct Block {
    buffer: Buffer,
    /// The first aligned byte.
    start: usize,
    /// Bytes that it is for.
    pub(crate) size: usize,
    /// Bytes that there is room for behind them: a block that is not full takes as many more.
    room: usize,
    /// All of it from the first aligned byte on, in the kind that was asked for last.
    view: Option<(TorchKind, Tensor)>,
}

impl Block {
    /// A block of `size` bytes and `room` more; page-locked where the device is a GPU.
    pub(crate) fn new(size: usize, room: usize, device: Device) -> Result<Block> {
        let buffer = Buffer::pinned(size + room + 2 * DIRECT_ALIGNMENT, device)?;
        Ok(Block { start: buffer.aligned(DIRECT_ALIGNMENT), buffer, size, room, view: None })
    }

    /// `numel` elements from byte `from` on, which is a multiple of the element's size.
    pub(crate) fn view(&mut self, kind: TorchKind, from: usize, numel: usize) -> Result<Tensor> {
        let item = kind.elt_size_in_bytes();
        if !matches!(&self.view, Some((known, _)) if *known == kind) {
            let numel = (self.size + self.room + DIRECT_ALIGNMENT) / item;
            self.view = Some((kind, self.buffer.view(self.start, kind, numel)?));
        }
        let (Some((_, whole)), 0) = (&self.view, from % item) else {
            return self.buffer.view(self.start + from, kind, numel);
        };
        part(whole, from / item, numel)
    }

    pub(crate) fn bytes(&self, from: usize, length: usize) -> &[u8] {
        &self.buffer.bytes()[self.start + from..][..length]
    }

    pub(crate) fn bytes_mut(&mut self, from: usize, length: usize) -> &mut [u8] {
        &mut self.buffer.bytes_mut()[self.start + from..][..length]
    }
}

/// Bytes of a child that are ready to be written.
pub(crate) struct Part {
    pub(crate) child: usize,
    pub(crate) storage: usize,
    /// Bytes from the storage's start.
    pub(crate) offset: u64,
    pub(crate) block: Block,
    /// Where the bytes begin in the block.
    pub(crate) from: usize,
    pub(crate) length: usize,
}

impl Part {
    /// The bytes to be written.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.block.bytes(self.from, self.length)
    }
}

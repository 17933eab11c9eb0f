//! `SpanOut`: one child's bytes of one span, made in blocks that are aligned in memory as in the
//! file, each queued once it is full, while the worker goes on.

use tch::{Kind as TorchKind, Tensor};

use crate::checkpoint::DIRECT_ALIGNMENT;
use crate::engine::torch::calls::torch_error;
use crate::engine::write::block::{Block, Part};
use crate::engine::write::queue::Queue;
use crate::error::Result;
use crate::tensor::{Crc, RunningCrc};

/// One child's bytes of one span, made piece by piece.
///
/// Dropped before its end, it waits for what it handed on: a second try at the span must not be
/// overtaken by the first one's bytes.
pub(crate) struct SpanOut<'s> {
    queue: &'s Queue,
    child: usize,
    storage: usize,
    block: Option<Block>,
    /// The storage's first byte in the file.
    base: u64,
    /// Bytes of the storage before the first that is not handed on.
    offset: u64,
    /// Where that one lies in the block.
    from: usize,
    filled: usize,
    handed_on: bool,
    crc: RunningCrc,
    first: [u8; 8],
}

impl<'s> SpanOut<'s> {
    /// A span that begins `offset` bytes from the storage's start, which lies at `base` in the file.
    pub(crate) fn new(
        queue: &'s Queue,
        (child, storage): (usize, usize),
        (base, offset): (u64, u64),
    ) -> SpanOut<'s> {
        SpanOut {
            queue,
            child,
            storage,
            block: None,
            base,
            offset,
            from: 0,
            filled: 0,
            handed_on: false,
            crc: RunningCrc::new(),
            first: [0; 8],
        }
    }

    fn in_file(&self) -> u64 {
        self.base.saturating_add(self.offset)
    }

    fn block(&mut self) -> Result<&mut Block> {
        if self.block.is_none() {
            let in_block = self.in_file() % DIRECT_ALIGNMENT as u64;
            self.from = usize::try_from(in_block).unwrap_or(0);
            self.block = Some(self.queue.block()?);
        }
        self.block.as_mut().ok_or_else(|| torch_error("no block"))
    }

    /// The next piece as a tensor, to be written to.
    pub(crate) fn view(&mut self, kind: TorchKind, numel: usize) -> Result<Tensor> {
        let filled = self.filled;
        self.block()?;
        let from = self.from + filled;
        self.block()?.view(kind, from, numel)
    }

    /// The next piece's bytes, to be written to.
    pub(crate) fn bytes_mut(&mut self, length: usize) -> Result<&mut [u8]> {
        self.block()?;
        let from = self.from + self.filled;
        Ok(self.block()?.bytes_mut(from, length))
    }

    /// The next `length` bytes are made: takes them into the checksum, and hands on what makes a
    /// whole block of the file.
    pub(crate) fn advance(&mut self, length: usize) -> Result<()> {
        let Some(block) = &self.block else { return Ok(()) };
        let bytes = block.bytes(self.from + self.filled, length);
        if self.crc.bytes() == 0 {
            for (slot, byte) in self.first.iter_mut().zip(bytes) {
                *slot = *byte;
            }
        }
        self.crc.update(bytes);
        self.filled += length;
        let size = block.size as u64;
        let end = self.in_file().saturating_add(self.filled as u64);
        let ready = (end - end % size).saturating_sub(self.in_file());
        match usize::try_from(ready) {
            Ok(ready) if ready > 0 => self.hand_on(ready),
            _ => Ok(()),
        }
    }

    /// Hands on the first `length` bytes; the others begin the next block.
    fn hand_on(&mut self, length: usize) -> Result<()> {
        let Some(block) = self.block.take() else { return Ok(()) };
        let (offset, from) = (self.offset, self.from);
        let rest = self.filled - length;
        self.offset = self.offset.saturating_add(length as u64);
        if rest > 0 {
            let old = block.bytes(from + length, rest);
            self.block()?;
            let to = self.from;
            self.block()?.bytes_mut(to, rest).copy_from_slice(old);
        }
        self.filled = rest;
        self.handed_on = true;
        let (child, storage) = (self.child, self.storage);
        self.queue.put(Part { child, storage, offset, block, from, length });
        Ok(())
    }

    /// Hands on what is left. CRC-32, length and first bytes of the span.
    pub(crate) fn finish(mut self) -> Result<(Crc, [u8; 8])> {
        if self.filled > 0 {
            self.hand_on(self.filled)?;
        }
        self.handed_on = false;
        Ok((self.crc.crc(), self.first))
    }
}

impl Drop for SpanOut<'_> {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.queue.give_back(block);
        }
        if self.handed_on {
            self.queue.drain();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::engine::write::queue::Role;

    /// Bytes of the blocks of [`queue`].
    const SIZE: usize = 128 << 10;

    /// A queue with room for all that a test puts while nothing is written.
    fn queue() -> Queue {
        Queue::of(64, 16, false)
    }

    #[test]
    fn bytes_arrive_in_blocks_of_the_file_wherever_the_span_begins() {
        for (base, start) in [(0, 0), (64, 0), (4096, 128), (1_000_000, 77_777), (3_000_064, 2)] {
            let queue = queue();
            let mut out = SpanOut::new(&queue, (0, 0), (base, start));
            let mut made = Vec::new();
            for (number, length) in [4, 131_072, 1, 524_288, 99_999, 7].into_iter().enumerate() {
                let piece: Vec<u8> = (0..length).map(|at| (at * 31 + number) as u8).collect();
                out.bytes_mut(length).unwrap().copy_from_slice(&piece);
                out.advance(length).unwrap();
                made.extend(piece);
            }
            // Nothing is written yet: this does not wait for it.
            let (crc, first) = out.finish().unwrap();
            assert_eq!(crc.crc32, crate::tensor::crc32(&made));
            // Taken from the first piece, which has four bytes here.
            assert_eq!((crc.bytes, &first[..4]), (made.len() as u64, &made[..4]));
            let parts = RefCell::new(Vec::new());
            let take = |_: Role, part: &Part| {
                // Memory and file must agree for direct I/O.
                let address = part.bytes().as_ptr().addr() as u64;
                let alignment = DIRECT_ALIGNMENT as u64;
                assert_eq!(address % alignment, (base + part.offset) % alignment);
                parts.borrow_mut().push((part.offset, part.bytes().to_vec()));
                Ok(())
            };
            queue.end();
            queue.run(Role::Writes, take, |_| Ok(())).unwrap();
            let mut next = start;
            for (offset, bytes) in parts.borrow().iter() {
                assert_eq!(*offset, next);
                next += bytes.len() as u64;
                assert!((base + next).is_multiple_of(SIZE as u64) || next == start + crc.bytes);
            }
            let all: Vec<u8> = parts.into_inner().into_iter().flat_map(|part| part.1).collect();
            assert!(all == made);
            assert_eq!(queue.blocks_out(), 0);
        }
    }

    #[test]
    fn a_span_that_is_given_up_waits_for_what_it_handed_on() {
        let (queue, written) = (queue(), AtomicUsize::new(0));
        let mut out = SpanOut::new(&queue, (0, 0), (64, 0));
        out.bytes_mut(1000).unwrap();
        out.advance(1000).unwrap();
        // Nobody writes, but nothing was handed on.
        drop(out);
        let slow = |_: Role, _: &Part| {
            std::thread::sleep(Duration::from_millis(20));
            written.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        std::thread::scope(|scope| {
            scope.spawn(|| queue.run(Role::Writes, slow, |_| Ok(())).unwrap());
            let mut out = SpanOut::new(&queue, (0, 0), (64, 0));
            for _ in 0..3 {
                out.bytes_mut(100_000).unwrap();
                out.advance(100_000).unwrap();
            }
            drop(out);
            assert_eq!(written.load(Ordering::Relaxed), 2);
            queue.end();
        });
        assert_eq!(queue.blocks_out(), 0);
    }
}

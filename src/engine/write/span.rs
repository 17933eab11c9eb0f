//! A child's bytes on their way from a worker to the file: made in blocks that lie in memory as they
//! lie in the file, and handed on to be written while the worker goes on.

use tch::{Kind as TorchKind, Tensor};

use crate::checkpoint::DIRECT_ALIGNMENT;
use crate::engine::torch::buffer::Buffer;
use crate::engine::torch::calls::{TorchResult, torch_error};
use crate::engine::torch::ops::{PIECE, WIDEST, to_i64};
use crate::error::Result;
use crate::tensor::{Crc, RunningCrc};

/// Where a worker's bytes go: the children, by their position in the list of t.
pub(crate) trait Sink: Sync {
    /// Where in a child's file a storage begins, in bytes.
    fn file_offset(&self, child: usize, storage: usize) -> Result<u64>;

    /// A block to fill; waits until one is free.
    fn block(&self) -> Result<OutBlock>;

    /// Takes back a block of which nothing is to be written.
    fn give_back(&self, block: OutBlock);

    /// Takes a part of a child, which is written soon. Parts are written in no order.
    fn write(&self, part: Part);

    /// Waits until all parts that were handed on are written.
    fn drain(&self);

    /// Asked before each piece: an error to stop with (interrupts).
    fn go_on(&self) -> Result<()>;
}

/// Memory for consecutive bytes of a child, aligned as direct I/O wants it.
#[derive(Debug)]
pub(crate) struct OutBlock {
    buffer: Buffer,
    /// The first aligned byte.
    start: usize,
    /// Bytes that a block is for; there is room for one piece more.
    size: usize,
    /// All of it from the first aligned byte on, in the kind that was asked for last.
    view: Option<(TorchKind, Tensor)>,
}

impl OutBlock {
    /// A block of `size` bytes.
    pub(crate) fn new(size: usize) -> Result<OutBlock> {
        let buffer = Buffer::new(size + PIECE * WIDEST + 2 * DIRECT_ALIGNMENT)?;
        Ok(OutBlock { start: buffer.aligned(DIRECT_ALIGNMENT), buffer, size, view: None })
    }

    /// `numel` elements from byte `from` on, which is a multiple of the element's size.
    fn view(&mut self, kind: TorchKind, from: usize, numel: usize) -> Result<Tensor> {
        let item = kind.elt_size_in_bytes();
        if !matches!(&self.view, Some((known, _)) if *known == kind) {
            let numel = (self.size + PIECE * WIDEST + DIRECT_ALIGNMENT) / item;
            self.view = Some((kind, self.buffer.view(self.start, kind, numel)?));
        }
        let (Some((_, whole)), 0) = (&self.view, from % item) else {
            return self.buffer.view(self.start + from, kind, numel);
        };
        whole.f_narrow(0, to_i64(from / item)?, to_i64(numel)?).or_torch("take a view")
    }

    fn bytes(&self, from: usize, length: usize) -> &[u8] {
        &self.buffer.bytes()[self.start + from..][..length]
    }

    fn bytes_mut(&mut self, from: usize, length: usize) -> &mut [u8] {
        &mut self.buffer.bytes_mut()[self.start + from..][..length]
    }
}

/// Bytes of a child that are ready to be written.
pub(crate) struct Part {
    pub(crate) child: usize,
    pub(crate) storage: usize,
    /// Bytes from the storage's start.
    pub(crate) offset: u64,
    pub(crate) block: OutBlock,
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

/// One child's bytes of one span, made piece by piece.
///
/// Dropped before its end, it waits for what it handed on: a second try at the span must not be
/// overtaken by the first one's bytes.
pub(crate) struct SpanOut<'s> {
    sink: &'s dyn Sink,
    child: usize,
    storage: usize,
    block: Option<OutBlock>,
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
    /// A span that begins `offset` bytes from the storage's start.
    pub(crate) fn new(
        sink: &'s dyn Sink,
        child: usize,
        storage: usize,
        offset: u64,
    ) -> Result<SpanOut<'s>> {
        let base = sink.file_offset(child, storage)?;
        Ok(SpanOut {
            sink,
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
        })
    }

    fn in_file(&self) -> u64 {
        self.base.saturating_add(self.offset)
    }

    fn block(&mut self) -> Result<&mut OutBlock> {
        if self.block.is_none() {
            let in_block = self.in_file() % DIRECT_ALIGNMENT as u64;
            self.from = usize::try_from(in_block).unwrap_or(0);
            self.block = Some(self.sink.block()?);
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
        self.sink.write(Part { child, storage, offset, block, from, length });
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
            self.sink.give_back(block);
        }
        if self.handed_on {
            self.sink.drain();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const SIZE: usize = 128 << 10;

    /// Takes parts, and counts what must not get lost.
    struct Collected {
        base: u64,
        parts: Mutex<Vec<(u64, Vec<u8>)>>,
        blocks_out: Mutex<i32>,
        drained: Mutex<i32>,
    }

    impl Collected {
        fn new(base: u64) -> Collected {
            let (parts, blocks_out, drained) = Default::default();
            Collected { base, parts, blocks_out, drained }
        }
    }

    impl Sink for Collected {
        fn file_offset(&self, _: usize, _: usize) -> Result<u64> {
            Ok(self.base)
        }
        fn block(&self) -> Result<OutBlock> {
            *self.blocks_out.lock().unwrap() += 1;
            OutBlock::new(SIZE)
        }
        fn give_back(&self, _: OutBlock) {
            *self.blocks_out.lock().unwrap() -= 1;
        }
        fn write(&self, part: Part) {
            // Memory and file must agree for direct I/O.
            let address = part.bytes().as_ptr().addr() as u64;
            let alignment = DIRECT_ALIGNMENT as u64;
            assert_eq!(address % alignment, (self.base + part.offset) % alignment);
            self.parts.lock().unwrap().push((part.offset, part.bytes().to_vec()));
            *self.blocks_out.lock().unwrap() -= 1;
        }
        fn drain(&self) {
            *self.drained.lock().unwrap() += 1;
        }
        fn go_on(&self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bytes_arrive_in_blocks_of_the_file_wherever_the_span_begins() {
        for (base, start) in [(0, 0), (64, 0), (4096, 128), (1_000_000, 77_777), (3_000_064, 2)] {
            let sink = Collected::new(base);
            let mut out = SpanOut::new(&sink, 0, 0, start).unwrap();
            let mut made = Vec::new();
            for (number, length) in [4, 131_072, 1, 524_288, 99_999, 7].into_iter().enumerate() {
                let piece: Vec<u8> = (0..length).map(|at| (at * 31 + number) as u8).collect();
                out.bytes_mut(length).unwrap().copy_from_slice(&piece);
                out.advance(length).unwrap();
                made.extend(piece);
            }
            let (crc, first) = out.finish().unwrap();
            assert_eq!(crc.crc32, crate::tensor::crc32(&made));
            // Taken from the first piece, which has four bytes here.
            assert_eq!((crc.bytes, &first[..4]), (made.len() as u64, &made[..4]));
            let parts = sink.parts.into_inner().unwrap();
            let mut next = start;
            for (offset, bytes) in &parts {
                assert_eq!(*offset, next);
                next += bytes.len() as u64;
                assert!((base + next).is_multiple_of(SIZE as u64) || next == start + crc.bytes);
            }
            let all: Vec<u8> = parts.into_iter().flat_map(|part| part.1).collect();
            assert!(all == made);
            assert_eq!((*sink.blocks_out.lock().unwrap(), *sink.drained.lock().unwrap()), (0, 0));
        }
    }

    #[test]
    fn a_span_that_is_given_up_waits_for_what_it_handed_on() {
        let sink = Collected::new(64);
        let mut out = SpanOut::new(&sink, 0, 0, 0).unwrap();
        out.bytes_mut(1000).unwrap();
        out.advance(1000).unwrap();
        drop(out);
        assert_eq!(*sink.drained.lock().unwrap(), 0);
        let mut out = SpanOut::new(&sink, 0, 0, 0).unwrap();
        out.bytes_mut(300_000).unwrap();
        out.advance(300_000).unwrap();
        drop(out);
        assert_eq!((*sink.blocks_out.lock().unwrap(), *sink.drained.lock().unwrap()), (0, 1));
    }
}

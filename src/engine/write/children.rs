//! `Children`: the children being written, as workers and writing threads share them.

use tch::Device;

use crate::checkpoint::ChildWriter;
use crate::engine::faults;
use crate::engine::write::block::Part;
use crate::engine::write::queue::{Queue, Role};
use crate::engine::write::span::SpanOut;
use crate::error::{Error, Result};

/// The children, one per value of t, and what is on its way to them.
pub(crate) struct Children<'a> {
    pub(crate) writers: &'a [ChildWriter],
    pub(crate) queue: Queue,
    interrupted: &'a (dyn Fn() -> Option<Error> + Sync),
    writes_nothing: bool,
}

impl<'a> Children<'a> {
    /// For this many workers; `chunk` as [`Queue::new`] takes it.
    pub(crate) fn new(
        writers: &'a [ChildWriter],
        (workers, chunk): (usize, Option<(Device, usize)>),
        interrupted: &'a (dyn Fn() -> Option<Error> + Sync),
    ) -> Children<'a> {
        Children {
            writers,
            queue: Queue::new(workers, writers, chunk),
            interrupted,
            writes_nothing: faults::writes_nothing(),
        }
    }

    /// A span of a storage in every child, `offset` bytes from the storage's start.
    pub(crate) fn spans(&self, storage: usize, offset: u64) -> Result<Vec<SpanOut<'_>>> {
        let span = |(child, writer): (usize, &ChildWriter)| {
            let base = writer.file_offset(storage)?;
            Ok(SpanOut::new(&self.queue, (child, storage), (base, offset)))
        };
        self.writers.iter().enumerate().map(span).collect()
    }

    /// Asked before each piece: an error to stop with (interrupts).
    pub(crate) fn go_on(&self) -> Result<()> {
        (self.interrupted)().map_or(Ok(()), Err)
    }

    /// Writes a part into its child's file.
    pub(crate) fn write(&self, role: Role, part: &Part) -> Result<()> {
        if self.writes_nothing {
            return Ok(());
        }
        let Some(child) = self.writers.get(part.child) else { return Ok(()) };
        match role {
            Role::Writes => child.write(part.storage, part.offset, part.bytes()),
            Role::Spills => child.write_cached(part.storage, part.offset, part.bytes()),
        }
    }
}

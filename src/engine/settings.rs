//! How a plan is run, and where its workers write.

use crate::checkpoint::ChildWriter;
use crate::engine::devices::ComputeDevice;
use crate::engine::write::queue::Writing;
use crate::engine::write::span::{OutBlock, Part, Sink};
use crate::error::{Error, Kind, Result};

/// How fast and in how much memory a plan is run. Of these only whether there are devices changes the
/// child, in its last places.
pub struct Settings<'s> {
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Bytes that the workers together may use to keep tensors between the two passes.
    pub memory_bytes: u64,
    /// The devices that share the work; none means the CPU.
    pub devices: &'s [ComputeDevice],
    /// Bytes that the workers of each device may use of its memory; `None` is half of what is free.
    pub device_bytes: Option<u64>,
    /// Asked between spans: an error to stop with (interrupts).
    pub interrupted: &'s (dyn Fn() -> Option<Error> + Sync),
}

/// Where the workers write.
pub(crate) struct Children<'a> {
    pub(crate) children: &'a [ChildWriter],
    pub(crate) writing: &'a Writing,
    pub(crate) settings: &'a Settings<'a>,
}

impl Sink for Children<'_> {
    fn file_offset(&self, child: usize, storage: usize) -> Result<u64> {
        match self.children.get(child) {
            Some(writer) => writer.file_offset(storage),
            None => Err(Error::new(Kind::Internal, "more values of t than children")),
        }
    }

    fn block(&self) -> Result<OutBlock> {
        self.writing.block()
    }

    fn give_back(&self, block: OutBlock) {
        self.writing.give_back(block);
    }

    fn write(&self, part: Part) {
        self.writing.put(part);
    }

    fn drain(&self) {
        self.writing.drain();
    }

    fn go_on(&self) -> Result<()> {
        (self.settings.interrupted)().map_or(Ok(()), Err)
    }
}

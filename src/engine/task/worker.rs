//! The trait `Worker`: both passes over a span, on whatever device.

use std::ops::Range;

use crate::engine::read::slot::Slot;
use crate::engine::task::tensor_task::{Decision, Scan, Task, Written};
use crate::error::Result;

/// Decides how a tensor is merged, from the sums over all of it.
pub(crate) type Settle<'s> = dyn FnMut(&Scan) -> Result<Decision> + 's;

/// The buffers and the arithmetic of one worker thread.
pub(crate) trait Worker {
    /// Pass one over a span: sums and CRCs.
    fn scan(&mut self, task: &Task<'_>, span: Range<u64>) -> Result<Scan>;

    /// Pass two over a span: takes its first pieces from `kept`, reads the others again, and writes
    /// the children's bytes.
    fn write(
        &mut self,
        task: &Task<'_>,
        storage: usize,
        span: Range<u64>,
        decision: Option<&Decision>,
        kept: Vec<Slot>,
    ) -> Result<Written>;

    /// Both passes over a tensor.
    fn scan_and_write(
        &mut self,
        task: &Task<'_>,
        storage: usize,
        settle: &mut Settle<'_>,
    ) -> Result<Written>;

    /// Counts NaN and Inf of one side of a tensor, reading it again; the first one's flat index.
    fn count_side(&mut self, task: &Task<'_>, lane: usize) -> Result<(u64, Option<u64>)>;
}

//! Writes what the workers made, on threads of its own: disks are slow and wait for nobody's cache.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::checkpoint::ChildWriter;
use crate::engine::span_out::{OutBlock, Part};
use crate::error::Result;

/// Blocks of all workers together are to take no more than this, where small ones will do.
const BLOCKS_BYTES: usize = 64 << 20;

/// Bytes of a block: large enough for the disk, small enough for a core's cache.
const LARGEST: usize = 1 << 20;
const SMALLEST: usize = 128 << 10;

/// Threads that write past the page cache: as many requests are at the disk at once.
const DIRECT_THREADS: usize = 4;

/// Workers whose bytes one thread can copy to the page cache. File systems let one thread write a
/// file at a time, so a second one would mostly wait.
const WORKERS_PER_CACHED_THREAD: usize = 4;

/// Blocks that wait or are being written, beyond those that the workers fill.
const QUEUE: usize = 8;

/// The blocks of a merge: free, in a worker's hands, or waiting to be written.
#[derive(Debug)]
pub(crate) struct Writing {
    state: Mutex<State>,
    wake: Condvar,
    size: usize,
    most: usize,
    threads: usize,
}

#[derive(Default)]
struct State {
    free: Vec<OutBlock>,
    made: usize,
    waiting: VecDeque<Part>,
    being_written: usize,
    over: bool,
    failed: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} blocks, {} waiting", self.made, self.waiting.len())
    }
}

impl Writing {
    /// For so many workers, each of which fills a block of every child at once.
    pub(crate) fn new(workers: usize, children: &[ChildWriter]) -> Writing {
        // One more, into which the rest of a full one is copied.
        let in_hands = workers.max(1).saturating_mul(children.len().saturating_add(1));
        let most = in_hands.saturating_add(QUEUE);
        let fit = (BLOCKS_BYTES / most).clamp(SMALLEST, LARGEST);
        let size = if fit.is_power_of_two() { fit } else { fit.next_power_of_two() / 2 };
        let direct = children.iter().any(ChildWriter::is_direct);
        let cached = workers.div_ceil(WORKERS_PER_CACHED_THREAD).clamp(1, DIRECT_THREADS);
        Writing {
            state: Mutex::default(),
            wake: Condvar::new(),
            size,
            most,
            threads: if direct { DIRECT_THREADS } else { cached },
        }
    }

    /// Threads that are to call [`Writing::run`].
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.wake.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// A block to fill, once there is one.
    ///
    /// # Errors
    /// [`Kind::Resource`](crate::error::Kind::Resource) where there is no memory.
    pub(crate) fn block(&self) -> Result<OutBlock> {
        let mut state = self.lock();
        loop {
            if let Some(block) = state.free.pop() {
                return Ok(block);
            }
            // After a failure nothing is waited for: the workers end soon.
            if state.made < self.most || state.failed {
                state.made += 1;
                drop(state);
                return OutBlock::new(self.size);
            }
            state = self.wait(state);
        }
    }

    /// Takes back an empty block.
    pub(crate) fn give_back(&self, block: OutBlock) {
        self.lock().free.push(block);
        self.wake.notify_all();
    }

    /// Takes a part that is to be written.
    pub(crate) fn put(&self, part: Part) {
        let mut state = self.lock();
        if state.failed {
            state.free.push(part.block);
        } else {
            state.waiting.push_back(part);
        }
        drop(state);
        self.wake.notify_all();
    }

    /// Waits until everything that was put is written, or writing failed.
    pub(crate) fn drain(&self) {
        let mut state = self.lock();
        while !state.failed && (!state.waiting.is_empty() || state.being_written > 0) {
            state = self.wait(state);
        }
    }

    /// No more will be put: [`Writing::run`] ends when all is written.
    pub(crate) fn end(&self) {
        self.lock().over = true;
        self.wake.notify_all();
    }

    /// Writes part by part until [`Writing::end`].
    ///
    /// # Errors
    /// As [`ChildWriter::write`]; nothing is written any more then, by any thread.
    pub(crate) fn run(&self, children: &[ChildWriter]) -> Result<()> {
        loop {
            let mut state = self.lock();
            let part = loop {
                if let Some(part) = state.waiting.pop_front() {
                    break part;
                }
                if state.over || state.failed {
                    return Ok(());
                }
                state = self.wait(state);
            };
            state.being_written += 1;
            drop(state);
            let written = match children.get(part.child) {
                Some(child) => child.write(part.storage, part.offset, part.bytes()),
                None => Ok(()),
            };
            let mut state = self.lock();
            state.being_written -= 1;
            state.free.push(part.block);
            if written.is_err() {
                state.failed = true;
                let dropped = std::mem::take(&mut state.waiting);
                state.free.extend(dropped.into_iter().map(|part| part.block));
            }
            drop(state);
            self.wake.notify_all();
            written?;
        }
    }
}

//! Flushes the children's files while they are written, so that little is left for the end.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::checkpoint::ChildWriter;
use crate::error::Result;

/// Bytes of all children between two flushes.
const STEP_BYTES: u64 = 256 << 20;

/// What the workers and the thread that flushes share.
#[derive(Debug, Default)]
pub(crate) struct Flusher {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes written since the last flush began.
    waiting: u64,
    over: bool,
}

impl Flusher {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes bytes that were written.
    pub(crate) fn wrote(&self, bytes: u64) {
        let mut state = self.lock();
        state.waiting = state.waiting.saturating_add(bytes);
        if state.waiting >= STEP_BYTES {
            self.wake.notify_all();
        }
    }

    /// No more is written: what is left is for the flush at the end.
    pub(crate) fn end(&self) {
        self.lock().over = true;
        self.wake.notify_all();
    }

    /// Flushes step by step until [`Flusher::end`].
    ///
    /// # Errors
    /// As [`ChildWriter::flush_written`]; nothing is flushed any more then.
    pub(crate) fn run(&self, children: &[ChildWriter]) -> Result<()> {
        loop {
            let mut state = self.lock();
            while !state.over && state.waiting < STEP_BYTES {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.over {
                return Ok(());
            }
            state.waiting = 0;
            drop(state);
            children.iter().try_for_each(ChildWriter::flush_written)?;
        }
    }
}

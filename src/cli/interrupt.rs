//! SIGINT and SIGTERM: the merge stops between two spans, cleans up, and the shell sees a signal.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::error::{Error, Kind};

/// The signal that came, 0 for none.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Begins to listen. A second signal of the same kind ends the process at once.
    pub(crate) fn listen() -> Interrupt {
        let signal = Arc::new(AtomicUsize::new(0));
        let again = Arc::new(std::sync::atomic::AtomicBool::new(false));
        for number in [SIGINT, SIGTERM, SIGHUP] {
            // Order matters: the default action is armed by the first signal and taken by the second.
            let armed = signal_hook::flag::register_conditional_default(number, Arc::clone(&again));
            let stored = usize::try_from(number)
                .map(|value| signal_hook::flag::register_usize(number, Arc::clone(&signal), value));
            let second = signal_hook::flag::register(number, Arc::clone(&again));
            if armed.is_err() || second.is_err() || !matches!(stored, Ok(Ok(_))) {
                log::warn!("cannot listen for signal {number}");
            }
        }
        Interrupt(signal)
    }

    /// The error to stop with, once a signal has come.
    pub(crate) fn error(&self) -> Option<Error> {
        let signal = i32::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0);
        match signal {
            0 => None,
            SIGINT => Some(Error::new(Kind::Interrupted, "interrupted")),
            _ => Some(Error::new(Kind::Terminated, "terminated by a signal")),
        }
    }
}

/// Ends the process by the signal itself where one came, so that shells and schedulers see it.
pub(crate) fn reraise(kind: Kind) {
    let signal = match kind {
        Kind::Interrupted => SIGINT,
        Kind::Terminated => SIGTERM,
        _ => return,
    };
    let _ = signal_hook::low_level::emulate_default_handler(signal);
}

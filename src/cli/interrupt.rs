//! Signals: the merge stops between two pieces, leaves what it has, and the shell sees a signal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};

use crate::engine::Interrupted;
use crate::error::{Error, Kind};

/// The signal that came, 0 for none.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Begins to listen. A second signal ends the process at once. Signals that were ignored when
    /// the process began stay so (`nohup`, jobs in the background).
    pub(crate) fn listen() -> Interrupt {
        let signal = Arc::new(AtomicUsize::new(0));
        let again = Arc::new(AtomicBool::new(false));
        let ignored = ignored_signals();
        for number in [SIGINT, SIGTERM, SIGHUP] {
            if ignored & (1 << (number - 1)) != 0 {
                continue;
            }
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

    /// The same for a job.
    pub(crate) fn to_job(&self) -> Interrupted {
        let interrupt = self.clone();
        Interrupted::by(move || interrupt.error())
    }

    /// The error to stop with, once a signal has come.
    pub(crate) fn error(&self) -> Option<Error> {
        let signal = i32::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0);
        match signal {
            0 => None,
            SIGINT => Some(Error::new(Kind::Interrupted, "interrupted")),
            SIGHUP => Some(Error::new(Kind::Terminated, "terminated: the terminal went away")),
            _ => Some(Error::new(Kind::Terminated, "terminated by a signal")),
        }
    }
}

/// Makes a file that grows beyond `ulimit -f` an error and not the end of the process.
pub(crate) fn survive_large_files() {
    if let Err(error) = signal_hook::flag::register(SIGXFSZ, Arc::default()) {
        log::warn!("cannot listen for signal {SIGXFSZ}: {error}");
    }
}

/// Signals that are ignored, as the kernel's mask: bit 0 is signal 1.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Ends the process by a signal where one came, so that shells and schedulers see it.
pub(crate) fn reraise(kind: Kind) {
    let signal = match kind {
        Kind::Interrupted => SIGINT,
        Kind::Terminated => SIGTERM,
        _ => return,
    };
    // The first process of a container is not ended by its own signals; its exit code says it.
    if rustix::process::getpid().is_init() {
        return;
    }
    let _ = signal_hook::low_level::emulate_default_handler(signal);
}

//! Catches signals: a merge stops between two pieces, leaves its work for a later run, and ends by
//! the signal.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};

use crate::engine::Interrupted;
use crate::error::{Error, Kind};

/// The signals that stop a merge.
const STOPPING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Receives the signals that stop the process.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<Received>);

/// The signals received so far.
#[derive(Debug)]
struct Received {
    /// The first signal, 0 for none.
    first: AtomicI32,
    /// Pending signals; `None` where the system has no signalfd.
    queue: Mutex<Option<SignalFd>>,
}

impl Interrupt {
    /// Starts to listen. Must run before any other thread starts: it blocks the signals in the calling
    /// thread, and later threads inherit that. A second signal ends the process at once. Signals that
    /// were ignored when the process started stay ignored (`nohup`, background jobs).
    pub(crate) fn listen() -> Interrupt {
        let ignored = ignored_signals();
        let signals = STOPPING.into_iter().filter(|signal| ignored & bit(*signal) == 0);
        let signals: SigSet = signals.collect();
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let queue = signals.thread_block().and_then(|()| SignalFd::with_flags(&signals, flags));
        let wakeup = queue.as_ref().ok().and_then(|queue| queue.as_fd().try_clone_to_owned().ok());
        if let Err(error) = &queue {
            log::warn!("cannot listen for signals: {error}");
        }
        let queue = Mutex::new(queue.ok());
        let interrupt = Interrupt(Arc::new(Received { first: AtomicI32::new(0), queue }));
        let received = interrupt.clone();
        let watch = move || {
            let Some(queue) = wakeup else { return };
            loop {
                // Pending signals are taken even where the wait was interrupted.
                let _ = poll(&mut [PollFd::new(&queue, PollFlags::IN)], None);
                received.take();
            }
        };
        if let Err(error) = std::thread::Builder::new().name("signals".to_owned()).spawn(watch) {
            log::warn!("cannot watch for a second signal: {error}");
        }
        interrupt
    }

    /// Takes the pending signals, in order. Under the lock, one thread at a time decides whether a
    /// signal is the first.
    fn take(&self) {
        let queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = queue.as_ref() else { return };
        while let Ok(Some(received)) = queue.read_signal() {
            let number = i32::try_from(received.ssi_signo).unwrap_or(SIGTERM);
            if self.0.first.load(Ordering::Relaxed) != 0 {
                let _ = signal_hook::low_level::emulate_default_handler(number);
            }
            self.0.first.store(number, Ordering::Relaxed);
        }
    }

    /// [`Interrupt::error`] as a job asks it.
    pub(crate) fn to_job(&self) -> Interrupted {
        let interrupt = self.clone();
        Interrupted::by(move || interrupt.error())
    }

    /// The error to stop with, once there was a signal.
    pub(crate) fn error(&self) -> Option<Error> {
        if self.0.first.load(Ordering::Relaxed) == 0 {
            return None;
        }
        // A second signal that is pending ends the process here, before any message.
        self.take();
        match self.0.first.load(Ordering::Relaxed) {
            SIGINT => Some(Error::new(Kind::Interrupted, "interrupted")),
            SIGHUP => Some(Error::new(Kind::Terminated, "terminated: the terminal went away")),
            _ => Some(Error::new(Kind::Terminated, "terminated by a signal")),
        }
    }
}

/// A signal's bit in the kernel's masks: bit 0 is signal 1.
fn bit(signal: Signal) -> u64 {
    1 << (signal as i32 - 1)
}

/// Makes a write beyond `ulimit -f` an error in place of the end of the process.
pub(crate) fn survive_large_files() {
    if let Err(error) = signal_hook::flag::register(SIGXFSZ, Arc::default()) {
        log::warn!("cannot listen for signal {SIGXFSZ}: {error}");
    }
}

/// The ignored signals, as the kernel's mask.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Ends the process by the signal that stopped it, so that shells and schedulers see it.
pub(crate) fn reraise(kind: Kind) {
    let signal = match kind {
        Kind::Interrupted => SIGINT,
        Kind::Terminated => SIGTERM,
        _ => return,
    };
    // The first process of a container isn't ended by its own signals; its exit code has to tell.
    if rustix::process::getpid().is_init() {
        return;
    }
    let _ = signal_hook::low_level::emulate_default_handler(signal);
}

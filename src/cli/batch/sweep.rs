//! Runs one sweep: the process that reads an order from stdin and writes events to stdout.

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::batch::{Event, Order};
use crate::checkpoint::has_journal;
use crate::cli::interrupt::{self, Interrupt};
use crate::cli::{merge, print};
use crate::engine::{ChildState, Job, Reporter, Settings, prepare, run};
use crate::error::{Error, Kind, Result};
use crate::merge::Warning;

/// Shortest time between two events of progress.
const INTERVAL: Duration = Duration::from_millis(100);

/// Runs one sweep.
pub(crate) fn sweep() -> ExitCode {
    // A sweep must not outlive a batch that is killed.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        log::debug!("the kernel will not end this sweep with the batch: {error}");
    }
    let interrupt = Interrupt::listen();
    match make(&interrupt) {
        Ok(bytes_read) => {
            say(&Event::Done { bytes_read });
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&Event::Failed { failure: (&error).into(), parents: blames_parents(&error) });
            interrupt::reraise(error.kind());
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// Whether every child of these parents would fail with this error. An error of [`Kind::Data`] names a
/// rule where a parent breaks it; an overflow of one child names none.
fn blames_parents(error: &Error) -> bool {
    match error.kind() {
        Kind::Data => error.rule().is_some(),
        Kind::NoInput | Kind::Usage | Kind::Device | Kind::Interrupted | Kind::Terminated => true,
        _ => false,
    }
}

fn make(interrupt: &Interrupt) -> Result<u64> {
    let started = Instant::now();
    let order = order()?;
    // The batch may have ended before the kernel was asked to tie this process to it.
    if getppid().is_none_or(|parent| parent.as_raw_pid() != order.batch_pid) {
        return Err(Error::new(Kind::Terminated, "the batch is gone"));
    }
    let devices = order.options.device.resolve()?;
    let mut job = order.job(interrupt.to_job());
    if job.outputs.iter().any(|output| output.symlink_metadata().is_ok()) {
        leave_out_present(&mut job)?;
    }
    if job.outputs.is_empty() {
        return Ok(0);
    }
    job.resume = job.outputs.iter().any(|output| has_journal(output));
    let interrupted = || interrupt.error();
    let settings = Settings {
        threads: merge::threads(order.options.threads, order.part, devices.len()),
        memory_bytes: order.options.memory_bytes,
        devices: &devices,
        device_bytes: order.options.device_bytes,
        device_sharers: order.part.sharers,
        interrupted: &interrupted,
    };
    let error = match attempt(job.clone(), &settings, started) {
        Err(error) if is_of_another_merge(&error) => error,
        ended => return ended,
    };
    log::warn!("what an interrupted run left is of no use, merging from the start: {error}");
    job.resume = false;
    attempt(job, &settings, started)
}

/// Runs the merge once; returns the bytes read from the parents.
fn attempt(job: Job, settings: &Settings<'_>, started: Instant) -> Result<u64> {
    let prepared = prepare(job)?;
    prepared.plan.warnings.iter().for_each(warn);
    let progress = Progress(Mutex::new((0, Instant::now())));
    let (_, outcome) = run(prepared, settings, &progress, started)?;
    outcome.report.warnings.iter().for_each(warn);
    Ok(outcome.report.bytes_read)
}

/// Whether the error is about a work directory that a merge of other parents or options left.
fn is_of_another_merge(error: &Error) -> bool {
    let interrupted = matches!(error.kind(), Kind::Interrupted | Kind::Terminated);
    !interrupted && !error.left().is_empty()
}

fn order() -> Result<Order> {
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    let order = read.ok().and_then(|_| serde_json::from_str(&line).ok());
    order.ok_or_else(|| {
        Error::new(Kind::Usage, "no order on stdin")
            .with_hint("this is a part of `batch`; for one merge use `merge`")
    })
}

/// Leaves out the children that exist already.
fn leave_out_present(job: &mut Job) -> Result<()> {
    let looked_at = prepare(Job { outputs: Vec::new(), ..job.clone() })?;
    let (mut outputs, mut children) = (Vec::new(), Vec::new());
    for (output, child) in job.outputs.iter().zip(&job.options.children) {
        if looked_at.child_state(output, &child.schedule)? != ChildState::Done {
            outputs.push(output.clone());
            children.push(child.clone());
        }
    }
    job.outputs = outputs;
    job.options.children = children;
    Ok(())
}

fn warn(warning: &Warning) {
    say(&Event::Warning(warning.to_string()));
}

fn say(event: &Event) {
    if let Ok(line) = serde_json::to_string(event) {
        // If the batch is gone, nobody reads the event.
        let _ = print::result(&line);
    }
}

/// Bytes since the last event, and when that was.
struct Progress(Mutex<(u64, Instant)>);

impl Progress {
    fn add(&self, bytes: u64, now: bool) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = state.0.saturating_add(bytes);
        if state.0 > 0 && (now || state.1.elapsed() >= INTERVAL) {
            say(&Event::Advance(state.0));
            *state = (0, Instant::now());
        }
    }
}

impl Reporter for Progress {
    fn start(&self, total_bytes: u64) {
        say(&Event::Start(total_bytes));
    }

    fn advance(&self, bytes: u64) {
        self.add(bytes, false);
    }

    fn phase(&self, words: &str) {
        self.add(0, true);
        say(&Event::Phase(words.to_owned()));
    }

    fn finish(&self) {
        self.add(0, true);
    }
}

//! Runs the sweeps of a batch, several at once, tries those again that may work later, and gives
//! every merge its result.

use std::collections::VecDeque;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::batch::events::{Event, Failure};
use crate::batch::job::PlannedJob;
use crate::batch::outcome::{JobResult, Status};
use crate::batch::process::{Ended, Listener, Running};
use crate::batch::share::share;
use crate::batch::sweep::{Sweep, sweeps};
use crate::error::Kind;

/// Attempts at a sweep that may work later (exit code 75).
const ATTEMPTS: u32 = 5;

/// Pause before the second attempt; each later one is longer by as much.
const PAUSE: Duration = Duration::from_millis(500);

/// Interval at which signals are looked for.
const POLL: Duration = Duration::from_millis(20);

/// How a batch is run.
pub struct RunSettings<'s> {
    /// Sweeps that run at once, at least 1.
    pub slots: usize,
    /// Start nothing more once a merge has failed.
    pub fail_fast: bool,
    /// The command that runs one sweep: an [`Order`](crate::batch::Order) on stdin, [`Event`]s on stdout.
    pub command: &'s (dyn Fn() -> Command + Sync),
    /// Worker threads that the slots divide among them.
    pub threads: usize,
    /// The signal that was received; it is passed on, and nothing is started after it.
    pub signal: &'s (dyn Fn() -> Option<Signal> + Sync),
}

/// Receives the progress of a batch, from several threads.
pub trait Watcher: Sync {
    /// A sweep starts in this slot.
    fn started(&self, slot: usize, sweep: &Sweep);
    /// An event of its process.
    fn event(&self, slot: usize, sweep: &Sweep, event: &Event);
    /// A line of its stderr.
    fn line(&self, sweep: &Sweep, line: &str);
    /// The slot is free again.
    fn stopped(&self, slot: usize);
    /// A merge has its final result.
    fn result(&self, result: &JobResult);
}

struct Queue {
    sweeps: VecDeque<Sweep>,
    running: usize,
    stopped: bool,
    results: Vec<JobResult>,
}

struct Batch<'b> {
    jobs: &'b [PlannedJob],
    settings: &'b RunSettings<'b>,
    watcher: &'b dyn Watcher,
    queue: Mutex<Queue>,
    wake: Condvar,
    slots: Vec<Running>,
    over: AtomicBool,
}

/// Runs the merges of a plan and returns a result for each, in the manifest's order.
pub fn run(
    jobs: &[PlannedJob],
    settings: &RunSettings<'_>,
    watcher: &dyn Watcher,
) -> Vec<JobResult> {
    let n_slots = settings.slots.max(1);
    let queue = Queue {
        sweeps: sweeps(jobs).into(),
        running: 0,
        stopped: false,
        results: Vec::with_capacity(jobs.len()),
    };
    let batch = Batch {
        jobs,
        settings,
        watcher,
        queue: Mutex::new(queue),
        wake: Condvar::new(),
        slots: (0..n_slots).map(|_| Running::default()).collect(),
        over: AtomicBool::new(false),
    };
    for job in jobs.iter().filter(|job| job.children.iter().all(|child| child.present)) {
        batch.settle(job.result(Status::Present));
    }
    std::thread::scope(|scope| {
        scope.spawn(|| batch.pass_signals_on());
        let workers: Vec<_> = (0..n_slots)
            .map(|slot| {
                scope.spawn({
                    let batch = &batch;
                    move || batch.work(slot)
                })
            })
            .collect();
        for worker in workers {
            let _ = worker.join();
        }
        batch.over.store(true, Ordering::Relaxed);
    });
    let left: Vec<Sweep> = batch.lock().sweeps.drain(..).collect();
    for job in jobs.iter().filter(|job| left.iter().any(|sweep| sweep.jobs.contains(&job.index))) {
        batch.settle(job.result(Status::NotRun));
    }
    let mut results = std::mem::take(&mut batch.lock().results);
    results.sort_by_key(|result| result.job);
    results
}

impl Batch<'_> {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, result: JobResult) {
        self.watcher.result(&result);
        let mut queue = self.lock();
        queue.stopped |= self.settings.fail_fast && result.result == Status::Failed;
        queue.results.push(result);
    }

    /// Passes a signal on to every running process, to each once.
    fn pass_signals_on(&self) {
        while !self.over.load(Ordering::Relaxed) {
            if let Some(signal) = (self.settings.signal)() {
                self.lock().stopped = true;
                self.wake.notify_all();
                self.slots.iter().for_each(|slot| slot.signal_once(signal));
            }
            std::thread::sleep(POLL);
        }
    }

    fn next(&self) -> Option<Sweep> {
        let mut queue = self.lock();
        loop {
            if queue.stopped || (self.settings.signal)().is_some() {
                return None;
            }
            if let Some(sweep) = queue.sweeps.pop_front() {
                queue.running += 1;
                return Some(sweep);
            }
            // A running sweep may be queued again in parts.
            if queue.running == 0 {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self, slot: usize) {
        while let Some(sweep) = self.next() {
            self.watcher.started(slot, &sweep);
            let started = Instant::now();
            let ended = self.attempt(slot, &sweep);
            self.watcher.stopped(slot);
            self.end(sweep, &ended, started.elapsed());
            self.lock().running -= 1;
            self.wake.notify_all();
        }
        self.wake.notify_all();
    }

    /// Runs a sweep, several times where trying again may work.
    fn attempt(&self, slot: usize, sweep: &Sweep) -> Ended {
        let n_slots = self.slots.len();
        let order = sweep.order(share(&sweep.options, self.settings.threads, slot, n_slots));
        let listener = SlotListener { watcher: self.watcher, slot, sweep };
        let mut attempt = 1;
        loop {
            let ended = self.slots[slot].run((self.settings.command)(), &order, &listener);
            let again = matches!(&ended, Ended::Failed(failure, _)
                if failure.exit_code == Kind::TryAgain.exit_code());
            if !again || attempt == ATTEMPTS || !self.sleep(PAUSE * attempt) {
                return ended;
            }
            attempt += 1;
        }
    }

    /// Waits; `false` if the batch is stopped meanwhile.
    fn sleep(&self, pause: Duration) -> bool {
        let started = Instant::now();
        while started.elapsed() < pause {
            if (self.settings.signal)().is_some() {
                return false;
            }
            std::thread::sleep(POLL);
        }
        true
    }

    /// Gives a sweep's merges their results. Where one of several may have failed the sweep for
    /// the others, each is run alone instead.
    fn end(&self, sweep: Sweep, ended: &Ended, time: Duration) {
        let stopped = (self.settings.signal)().is_some();
        if let Ended::Failed(_, false) = ended
            && sweep.jobs.len() > 1
            && !stopped
        {
            let parts = sweep.split();
            let mut queue = self.lock();
            parts.into_iter().rev().for_each(|part| queue.sweeps.push_front(part));
            return;
        }
        for job in self.jobs.iter().filter(|job| sweep.jobs.contains(&job.index)) {
            let mut result = job.result(Status::Merged);
            result.seconds = time.as_secs_f64();
            result.sweep.clone_from(&sweep.jobs);
            match ended {
                Ended::Done(bytes_read) => result.bytes_read = *bytes_read,
                Ended::Failed(failure, _) => {
                    result.result = Status::Failed;
                    result.errors = vec![Failure::clone(failure)];
                }
            }
            self.settle(result);
        }
    }
}

struct SlotListener<'l> {
    watcher: &'l dyn Watcher,
    slot: usize,
    sweep: &'l Sweep,
}

impl Listener for SlotListener<'_> {
    fn event(&self, event: &Event) {
        self.watcher.event(self.slot, self.sweep, event);
    }

    fn line(&self, line: &str) {
        self.watcher.line(self.sweep, line);
    }
}

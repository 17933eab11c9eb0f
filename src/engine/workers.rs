//! Runs a plan: hands units of work to worker threads until every byte of every child is written.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::checkpoint::{Checkpoint, ChildWriter};
use crate::engine::contents::Contents;
use crate::engine::cpu::worker::CpuWorker;
use crate::engine::device::share::Share;
use crate::engine::device::worker::DeviceWorker;
use crate::engine::read::slot::Keep;
use crate::engine::read::source::{Source, read_storage};
use crate::engine::report::MergeReport;
use crate::engine::reporter::Reporter;
use crate::engine::resume;
use crate::engine::settings::Settings;
use crate::engine::task::errors::{changed, explain, nonfinite_error};
use crate::engine::task::tensor_task::{
    Decision, Finished, Scan, Task, Written, add_up, decide, widest_scanned,
};
use crate::engine::task::units::{Order, Unit, units};
use crate::engine::task::worker::Worker;
use crate::engine::torch::calls::use_one_thread;
use crate::engine::write::block::Part;
use crate::engine::write::children::Children;
use crate::engine::write::flusher::Flusher;
use crate::engine::write::queue::Role;
use crate::error::{Error, Kind, Result};
use crate::format::StorageSum;
use crate::merge::MergePlan;
use crate::tensor::Crc;

/// Tensors of up to this many bytes on both sides together are one worker's from end to end: sharing
/// one would cost more waiting than it saves.
const WHOLE_BYTES: u64 = 16 << 20;

struct Queue {
    units: VecDeque<Unit>,
    running: usize,
    error: Option<Error>,
}

struct Pool<'a> {
    plan: &'a MergePlan,
    parents: [&'a Checkpoint; 2],
    tasks: Vec<Task<'a>>,
    children: Children<'a>,
    settings: &'a Settings<'a>,
    reporter: &'a dyn Reporter,
    queue: Mutex<Queue>,
    wake: Condvar,
    finished: Mutex<Vec<Option<Finished>>>,
    bytes_read: AtomicU64,
    contents: Contents,
    share: Option<Share>,
    keep: Keep,
    flusher: Flusher,
}

/// Runs `plan` over both parents into `children`, one per value of t, and finishes their weight
/// files; they appear when the caller commits them.
///
/// The children's bytes do not depend on the settings.
///
/// # Errors
/// [`Kind::Data`] for NaN or Inf in a parent, overflow of the child and damaged data,
/// [`Kind::TryAgain`] where a parent changed meanwhile, [`Kind::Io`], or what
/// [`Settings::interrupted`] says.
pub fn execute(
    plan: &MergePlan,
    primary: &Checkpoint,
    secondary: &Checkpoint,
    children: &[ChildWriter],
    settings: &Settings<'_>,
    reporter: &dyn Reporter,
) -> Result<MergeReport> {
    let began = Instant::now();
    use_one_thread();
    let _no_grad = tch::no_grad_guard();
    let tasks = plan
        .storages
        .iter()
        .map(|storage| Task::new(storage, primary, secondary, &plan.options))
        .collect::<Result<Vec<_>>>()?;
    let n_children = u64::try_from(children.len()).unwrap_or(1);
    let finished = resume::look(tasks.len(), children, settings)?;
    reporter.start(plan.total_size.saturating_mul(n_children));
    let mut threads = settings.threads.max(1);
    // Devices keep tensors in their own memory.
    let (mut whole_bytes, mut keep_bytes) = (WHOLE_BYTES, settings.memory_bytes);
    let mut share = None;
    if !settings.devices.is_empty() {
        let planned = Share::new(&tasks, settings);
        (threads, whole_bytes, keep_bytes) = (planned.threads, planned.keep_bytes(), 0);
        share = Some(planned);
    }
    let first = settings.devices.first();
    let chunk = first.zip(share).map(|(device, share)| (device.device, share.chunk_bytes()));
    let parents = [primary, secondary];
    let contents = Contents::new(parents, &tasks, &finished);
    let left_over = contents.left_over(parents, &tasks, &finished);
    let order = if share.is_some() { Order::LargestFirst } else { Order::Stored };
    let units = units(&tasks, &finished, parents, (whole_bytes, order), left_over);
    let keep = Keep::new(keep_bytes, widest_scanned(&tasks));
    let pool = Pool {
        plan,
        parents,
        contents,
        finished: Mutex::new(finished),
        tasks,
        children: Children::new(children, (threads, chunk), settings.interrupted),
        settings,
        reporter,
        queue: Mutex::new(Queue { units, running: 0, error: None }),
        wake: Condvar::new(),
        bytes_read: AtomicU64::new(0),
        share,
        keep,
        flusher: Flusher::default(),
    };
    pool.advance_over_kept();
    std::thread::scope(|scope| {
        let pool = &pool;
        let start = |number| scope.spawn(move || pool.work(number));
        let workers: Vec<_> = (0..threads).map(start).collect();
        for role in pool.children.queue.threads() {
            scope.spawn(move || pool.or_stop(pool.write(role)));
        }
        scope.spawn(|| pool.or_stop(pool.flusher.run(pool.children.writers)));
        for worker in workers {
            // Panics were caught in it.
            let _ = worker.join();
        }
        pool.children.queue.end();
        pool.flusher.end();
    });
    if let Some(error) = pool.lock().error.take() {
        reporter.finish();
        return Err(error);
    }
    let report = pool.conclude();
    log::info!("merging took {:.3} s", began.elapsed().as_secs_f64());
    report
}

impl Pool<'_> {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker's life: a panic in it is an error of the merge, not the end of the process.
    fn work(&self, number: usize) {
        let result =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.loop_units(number)));
        let error = match result {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => Error::new(Kind::Internal, "a worker broke down")
                .with_hint("please report this with the log of RUST_LOG=debug"),
        };
        let mut queue = self.lock();
        queue.running = queue.running.saturating_sub(1);
        drop(queue);
        self.stop(error);
    }

    /// Lets the workers end after their present units.
    fn stop(&self, error: Error) {
        let mut queue = self.lock();
        queue.units.clear();
        if queue.error.is_none() {
            queue.error = Some(error);
        }
        self.wake.notify_all();
    }

    /// Ends the merge where a thread that writes or flushes failed.
    fn or_stop(&self, result: Result<()>) {
        if let Err(error) = result {
            self.stop(error);
        }
    }

    fn loop_units(&self, number: usize) -> Result<()> {
        // Counts as running until it asks for its first unit, for `work` subtracts one after an error.
        self.lock().running += 1;
        let _no_grad = tch::no_grad_guard();
        let mut worker = self.worker(number)?;
        self.lock().running -= 1;
        self.wake.notify_all();
        while let Some(unit) = self.next() {
            if let Some(error) = (self.settings.interrupted)() {
                return Err(error);
            }
            self.run(worker.as_mut(), unit)?;
            self.lock().running -= 1;
            self.wake.notify_all();
        }
        Ok(())
    }

    /// The worker of thread `number`: devices are dealt out in turn.
    fn worker(&self, number: usize) -> Result<Box<dyn Worker + '_>> {
        let (options, to) = (&self.plan.options, (&self.children, &self.keep));
        let devices = self.settings.devices;
        let position = number % devices.len().max(1);
        match (devices.get(position), &self.share) {
            (Some(device), Some(share)) => {
                Ok(Box::new(DeviceWorker::new(options, to, device, position, share)?))
            }
            _ => Ok(Box::new(CpuWorker::new(options, to)?)),
        }
    }

    /// The life of a thread that writes.
    fn write(&self, role: Role) -> Result<()> {
        let write = |role, part: &Part| self.children.write(role, part);
        self.children.queue.run(role, write, |storage| self.whole(storage))
    }

    /// Waits for a unit; `None` when there will be no more.
    fn next(&self) -> Option<Unit> {
        let mut queue = self.lock();
        loop {
            if queue.error.is_some() {
                return None;
            }
            if let Some(unit) = queue.units.pop_front() {
                queue.running += 1;
                return Some(unit);
            }
            if queue.running == 0 {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn run(&self, worker: &mut dyn Worker, unit: Unit) -> Result<()> {
        match unit {
            Unit::Verify(side, storage) => {
                let go_on = || (self.settings.interrupted)().map_or(Ok(()), Err);
                let crc32 = read_storage(self.parents[side], storage, &go_on)?;
                self.contents.note(side, storage, crc32)
            }
            Unit::Whole(index) => {
                let task = &self.tasks[index];
                let mut settle = |scan: &Scan| self.settle(task, &[scan]);
                let written = worker
                    .scan_and_write(task, index, &mut settle)
                    .map_err(|error| explain(worker, task, error))?;
                self.advance(task.plan.size_bytes());
                self.finish(index, vec![written])
            }
            Unit::Scan(index, span) => {
                let task = &self.tasks[index];
                let scan = worker.scan(task, task.span(span))?;
                let all = task
                    .scanned(span, scan, &|scans| self.settle(task, scans))
                    .map_err(|error| explain(worker, task, error))?;
                if all {
                    let mut queue = self.lock();
                    for span in (0..task.spans()).rev() {
                        queue.units.push_front(Unit::Write(index, span));
                    }
                }
                Ok(())
            }
            Unit::Write(index, span) => {
                let task = &self.tasks[index];
                let range = task.span(span);
                let numel = range.end - range.start;
                let decision = task.decision();
                let (kept, rest) = task.scan_of(span).unzip();
                let written = worker
                    .write(task, index, range, decision.as_deref(), kept.unwrap_or_default())
                    .map_err(|error| explain(worker, task, error))?;
                if rest.is_some_and(|rest| rest != written.read) {
                    return Err(changed(task));
                }
                self.advance(numel * task.plan.dtype.size_bytes());
                match task.written(span, written) {
                    Some(all) => self.finish(index, all),
                    None => Ok(()),
                }
            }
        }
    }

    fn advance_over_kept(&self) {
        let finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        for (task, _) in self.tasks.iter().zip(finished.iter()).filter(|pair| pair.1.is_some()) {
            self.advance(task.plan.size_bytes());
        }
    }

    fn advance(&self, bytes: u64) {
        let n_children = u64::try_from(self.children.writers.len()).unwrap_or(1);
        let bytes = bytes.saturating_mul(n_children);
        self.flusher.wrote(bytes);
        self.reporter.advance(bytes);
    }

    /// From the sums of all spans: is the data whole and finite, and what are the coefficients.
    fn settle(&self, task: &Task<'_>, scans: &[&Scan]) -> Result<Decision> {
        let read = self.contents.take(task, scans.iter().map(|scan| scan.read))?;
        self.bytes_read.fetch_add(read, Ordering::Relaxed);
        let sums = add_up(scans.iter().map(|scan| &scan.sums));
        if !sums.is_finite() && !self.plan.options.allow_nonfinite {
            return Err(nonfinite_error(task));
        }
        Ok(decide(task.plan, self.plan.options.method, sums))
    }

    /// A tensor's last span is written.
    fn finish(&self, index: usize, spans: Vec<Written>) -> Result<()> {
        let task = &self.tasks[index];
        task.sides().into_iter().flatten().for_each(Source::release);
        let decision = task.decision();
        if !task.needs_scan() {
            let read = self.contents.take(task, spans.iter().map(|span| span.read))?;
            self.bytes_read.fetch_add(read, Ordering::Relaxed);
        }
        let sums = match decision {
            Some(decision) => decision.sums,
            None => add_up(spans.iter().map(|span| &span.sums)),
        };
        let out = (0..self.children.writers.len())
            .map(|child| {
                let crcs = spans.iter().filter_map(|span| span.out.get(child)).map(|out| out.0);
                let first = spans.first().and_then(|span| span.out.get(child));
                StorageSum {
                    crc32: Crc::joined(crcs).crc32,
                    first_bytes: first.map_or([0; 8], |out| out.1),
                }
            })
            .collect();
        let finished = Finished {
            sums,
            out,
            differs: spans.iter().any(|span| span.differs),
            nonfinite: spans.iter().map(|span| span.nonfinite).sum(),
            made_on: spans.iter().map(|span| span.made_on).collect(),
            contents: self.contents.of(task),
        };
        // What is noted is believed later: not from a parent that changed.
        task.sides().into_iter().flatten().try_for_each(Source::check_unchanged)?;
        let mut all = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = all.get_mut(index) {
            *slot = Some(finished);
        }
        drop(all);
        if self.children.queue.is_whole(index) { self.whole(index) } else { Ok(()) }
    }

    /// All data is written: the parents are looked at once more, and the weight files finished.
    fn conclude(&self) -> Result<MergeReport> {
        self.parents.iter().try_for_each(|parent| parent.check_unchanged())?;
        let finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        self.reporter.phase("flushing to disk");
        for (child, writer) in self.children.writers.iter().enumerate() {
            let empty = StorageSum { crc32: 0, first_bytes: [0; 8] };
            let sums: Vec<StorageSum> = finished
                .iter()
                .map(|task| {
                    task.as_ref().and_then(|task| task.out.get(child).copied()).unwrap_or(empty)
                })
                .collect();
            writer.finish(&sums, self.plan.total_size, self.plan.total_parameters)?;
        }
        self.reporter.finish();
        let read = (self.bytes_read.load(Ordering::Relaxed), self.contents.sums());
        let devices = self.settings.devices;
        Ok(MergeReport::of(self.plan, &self.tasks, &finished, self.parents, devices, read))
    }

    /// Notes a storage that is written in the journals: a run that resumes this one finds it in its
    /// place.
    fn whole(&self, storage: usize) -> Result<()> {
        let all = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get(storage) {
            Some(Some(finished)) => resume::record(self.children.writers, storage, finished),
            _ => Ok(()),
        }
    }
}

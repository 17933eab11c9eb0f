//! Shows a running batch, by bars on a terminal and lines elsewhere, and records its results.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::batch::{Event, JobResult, Record, Status, Sweep, Watcher};
use crate::cli::args::OutputArgs;
use crate::cli::print;
use crate::tensor::escape;

/// Bars, lines and record of a running batch.
pub(crate) struct Show {
    quiet: bool,
    bars: Option<Bars>,
    labels: HashMap<usize, String>,
    total: usize,
    state: Mutex<State>,
}

struct State {
    done: usize,
    record: Option<Record>,
}

struct Bars {
    all: MultiProgress,
    batch: ProgressBar,
    slots: Vec<ProgressBar>,
    /// Styles of a slot before its sweep starts to merge, and after.
    waiting: ProgressStyle,
    merging: ProgressStyle,
}

impl Show {
    /// `labels` name each merge that runs.
    pub(crate) fn new(
        output: &OutputArgs,
        slots: usize,
        labels: HashMap<usize, String>,
        record: Option<Record>,
    ) -> Show {
        let shown = !output.quiet && !output.no_progress && std::io::stderr().is_terminal();
        let total = labels.len();
        Show {
            quiet: output.quiet,
            bars: shown.then(|| Bars::new(slots, total)),
            labels,
            total,
            state: Mutex::new(State { done: 0, record }),
        }
    }

    /// Removes the bars.
    pub(crate) fn end(&self) {
        if let Some(bars) = &self.bars {
            bars.batch.finish_and_clear();
            let _ = bars.all.clear();
        }
    }

    /// Counts a merge that planning refused; its errors are printed already.
    pub(crate) fn refused(&self, result: &JobResult) {
        self.count(result);
    }

    /// Counts and records a result.
    fn count(&self, result: &JobResult) -> usize {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.done += 1;
        let done = state.done;
        let written = state.record.as_mut().map_or(Ok(()), |record| record.add(result));
        drop(state);
        if let Some(bars) = &self.bars {
            bars.batch.inc(1);
        }
        if let Err(error) = written {
            self.say(&format!("warning: {error}"));
        }
        done
    }

    /// The bar of a slot, on a terminal.
    fn slot(&self, slot: usize) -> Option<(&Bars, &ProgressBar)> {
        let bars = self.bars.as_ref()?;
        Some((bars, bars.slots.get(slot)?))
    }

    fn label(&self, job: usize) -> &str {
        self.labels.get(&job).map_or("", String::as_str)
    }

    fn say(&self, line: &str) {
        match &self.bars {
            Some(bars) => bars.all.suspend(|| print::line(line)),
            None => print::line(line),
        }
    }

    fn sweep_label(&self, sweep: &Sweep) -> String {
        match sweep.jobs.as_slice() {
            [first, rest @ ..] if !rest.is_empty() => {
                format!("{} and {} more", self.label(*first), rest.len())
            }
            jobs => jobs.first().map_or(String::new(), |job| self.label(*job).to_owned()),
        }
    }
}

impl Bars {
    fn new(slots: usize, total: usize) -> Bars {
        let all = MultiProgress::new();
        let style = |template: &str| {
            let style = ProgressStyle::with_template(template);
            style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
        };
        let bar = |length: u64, style: &ProgressStyle| {
            all.add(ProgressBar::new(length).with_style(style.clone()))
        };
        let total = u64::try_from(total).unwrap_or(0);
        let batch = bar(total, &style("{msg:>30!} [{bar:32}] {pos}/{len} merges {elapsed}"));
        batch.set_message("batch");
        batch.enable_steady_tick(Duration::from_millis(500));
        let waiting = style("{msg:>30!}");
        let merging = style(
            "{msg:>30!} [{bar:32}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}",
        );
        let slots = (0..slots).map(|_| bar(0, &waiting)).collect();
        Bars { all, batch, slots, waiting, merging }
    }
}

impl Watcher for Show {
    fn started(&self, slot: usize, sweep: &Sweep) {
        let label = self.sweep_label(sweep);
        match self.slot(slot) {
            Some((bars, bar)) => {
                bar.reset();
                bar.set_style(bars.waiting.clone());
                bar.set_message(label);
            }
            None => log::info!("{label}: started"),
        }
    }

    fn event(&self, slot: usize, sweep: &Sweep, event: &Event) {
        if let Event::Warning(words) = event {
            if !self.quiet {
                self.say(&format!("{}: warning: {words}", self.sweep_label(sweep)));
            }
            return;
        }
        match (event, self.slot(slot)) {
            (Event::Start(bytes), Some((bars, bar))) => {
                bar.set_style(bars.merging.clone());
                bar.set_length(*bytes);
                bar.reset_elapsed();
            }
            (Event::Advance(bytes), Some((_, bar))) => bar.inc(*bytes),
            (Event::Phase(words), Some((_, bar))) => {
                bar.set_message(format!("{}: {words}", self.sweep_label(sweep)));
            }
            (Event::Phase(words), None) => log::info!("{}: {words}", self.sweep_label(sweep)),
            _ => {}
        }
    }

    fn line(&self, sweep: &Sweep, line: &str) {
        self.say(&format!("{}: {}", self.sweep_label(sweep), escape(line)));
    }

    fn stopped(&self, slot: usize) {
        if let Some((bars, bar)) = self.slot(slot) {
            bar.set_style(bars.waiting.clone());
            bar.set_message("");
        }
    }

    fn result(&self, result: &JobResult) {
        let done = self.count(result);
        let label = self.label(result.job);
        for failure in &result.errors {
            self.say(&format!("error: {label}: {}", failure.message));
            if let Some(hint) = &failure.hint {
                self.say(&format!("hint: {hint}"));
            }
        }
        let count = format!("[{done}/{}] {label}", self.total);
        match result.result {
            Status::Merged if self.bars.is_none() && !self.quiet => {
                self.say(&format!("{count}: merged in {:.1} s", result.seconds));
            }
            _ => log::info!("{count}: {}", result.result.name()),
        }
    }
}

//! Shows the progress of a merge: a bar on a terminal, plain log lines elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::engine::Reporter;
use crate::tensor::human_bytes;

/// Time between two log lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// A bar with bytes, rate and time left on stderr, where that is a terminal and `shown` is set;
/// else a log line every ten seconds.
pub(crate) fn reporter(shown: bool) -> Box<dyn Reporter> {
    named(shown, "merging")
}

/// The same for other work, named by `doing` in one word.
pub(crate) fn named(shown: bool, doing: &'static str) -> Box<dyn Reporter> {
    if !shown {
        return Box::new(());
    }
    if std::io::stderr().is_terminal() {
        let bar = ProgressBar::no_length();
        let style = ProgressStyle::with_template(
            "{msg:>20} [{bar:32}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}",
        );
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        return Box::new(Bar { bar, doing });
    }
    let now = Instant::now();
    let state = Mutex::new(LineState { done: 0, total: 0, started: now, said: now });
    Box::new(Lines { state, doing })
}

struct Bar {
    bar: ProgressBar,
    doing: &'static str,
}

impl Reporter for Bar {
    fn start(&self, total_bytes: u64) {
        self.bar.set_length(total_bytes);
        self.bar.set_message(self.doing);
        self.bar.reset_elapsed();
    }

    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn phase(&self, words: &str) {
        self.bar.set_message(words.to_owned());
        self.bar.tick();
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

struct Lines {
    state: Mutex<LineState>,
    doing: &'static str,
}

struct LineState {
    done: u64,
    total: u64,
    started: Instant,
    said: Instant,
}

impl Reporter for Lines {
    fn start(&self, total_bytes: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = LineState {
            done: 0,
            total: total_bytes,
            started: Instant::now(),
            said: Instant::now(),
        };
        log::info!("{} {}", self.doing, human_bytes(total_bytes));
    }

    fn advance(&self, bytes: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.done = state.done.saturating_add(bytes);
        if state.said.elapsed() >= LINE_INTERVAL {
            state.said = Instant::now();
            let seconds = state.started.elapsed().as_secs_f64();
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "shown with one decimal"
            )]
            let rate = human_bytes((state.done as f64 / seconds.max(0.001)) as u64);
            log::info!(
                "{}: {} of {}, {rate}/s",
                self.doing,
                human_bytes(state.done),
                human_bytes(state.total)
            );
        }
    }

    fn phase(&self, words: &str) {
        log::info!("{words}");
    }
}

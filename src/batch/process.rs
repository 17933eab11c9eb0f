//! Runs one sweep in its own process, so that a crash or a kill there ends no other sweep.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::batch::events::{Event, Failure};
use crate::batch::order::Order;
use crate::error::Kind;

/// Lines of a process's stderr that are kept to explain its death.
const LAST_LINES: usize = 5;

/// Interval at which a process that closed its output is checked for its end.
const POLL: Duration = Duration::from_millis(2);

/// The running process of a slot, where one runs, and whether a signal was passed on to it.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<(Option<Child>, bool)>);

/// How a process ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ended {
    /// It succeeded, with the bytes read from the parents.
    Done(u64),
    /// It failed, and whether the parents are at fault.
    Failed(Failure, bool),
}

/// Receives each event and each line of stderr.
pub(crate) trait Listener: Sync {
    /// An event on stdout.
    fn event(&self, event: &Event);
    /// A line of stderr.
    fn line(&self, line: &str);
}

impl Running {
    /// Sends a signal to the process, where one runs that got none yet.
    pub(crate) fn signal_once(&self, signal: Signal) {
        // The lock keeps the process from being reaped, so that no other one gets its id.
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(child), false) = (&slot.0, slot.1) {
            let _ = kill_process(Pid::from_child(child), signal);
            slot.1 = true;
        }
    }

    /// Runs `command` with this order to its end.
    ///
    /// The calling thread must live as long as the process: the kernel ends the process when the
    /// thread that started it ends.
    pub(crate) fn run(
        &self,
        mut command: Command,
        order: &Order,
        listener: &dyn Listener,
    ) -> Ended {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // In a group of its own: Ctrl-C reaches only the batch, which passes it on once.
        command.process_group(0);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                return crashed(Kind::Resource, &format!("cannot start it: {error}"), &[]);
            }
        };
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (Some(child), false);
        if let (Some(mut stdin), Ok(mut line)) = (stdin, serde_json::to_vec(order)) {
            line.push(b'\n');
            // If the process is gone already, its status will tell.
            let _ = stdin.write_all(&line);
        }
        let mut last_event = None;
        let mut last_lines = Vec::new();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| stderr.map(|stderr| listen(stderr, listener)));
            for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
                let Ok(line) = line else { break };
                match serde_json::from_str::<Event>(&line) {
                    Ok(event @ (Event::Done { .. } | Event::Failed { .. })) => {
                        last_event = Some(event);
                    }
                    Ok(event) => listener.event(&event),
                    Err(_) => listener.line(&line),
                }
            }
            last_lines = reader.join().ok().flatten().unwrap_or_default();
        });
        let status = self.wait();
        match (last_event, status) {
            (Some(Event::Done { bytes_read }), Some(status)) if status.success() => {
                Ended::Done(bytes_read)
            }
            (Some(Event::Failed { failure, parents }), _) => Ended::Failed(failure, parents),
            (_, status) => crashed(Kind::Internal, &death(status), &last_lines),
        }
    }

    fn wait(&self) -> Option<ExitStatus> {
        loop {
            let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match slot.0.as_mut().map(Child::try_wait) {
                Some(Ok(None)) => {}
                Some(Ok(Some(status))) => {
                    slot.0 = None;
                    return Some(status);
                }
                Some(Err(_)) | None => {
                    slot.0 = None;
                    return None;
                }
            }
            drop(slot);
            std::thread::sleep(POLL);
        }
    }
}

fn listen(stderr: ChildStderr, listener: &dyn Listener) -> Vec<String> {
    let mut last = Vec::new();
    let mut reader = BufReader::new(stderr);
    let mut bytes = Vec::new();
    // An endless line is cut.
    while let Ok(read) = reader.by_ref().take(1 << 16).read_until(b'\n', &mut bytes) {
        if read == 0 {
            break;
        }
        let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        listener.line(&line);
        if last.len() == LAST_LINES {
            last.remove(0);
        }
        last.push(line);
        bytes.clear();
    }
    last
}

fn death(status: Option<ExitStatus>) -> String {
    match status {
        Some(status) => match (status.signal(), status.code()) {
            (Some(signal), _) => format!("its process was ended by signal {signal}"),
            (None, Some(code)) => format!("its process ended with code {code} without a word"),
            (None, None) => "its process ended".to_owned(),
        },
        None => "its process was lost".to_owned(),
    }
}

fn crashed(kind: Kind, words: &str, last_lines: &[String]) -> Ended {
    let mut message = words.to_owned();
    if !last_lines.is_empty() {
        message.push_str(": ");
        message.push_str(&last_lines.join(" | "));
    }
    Ended::Failed(Failure::new(kind, message, None), false)
}

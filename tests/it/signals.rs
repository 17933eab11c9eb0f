//! SIGINT, SIGTERM and SIGHUP: the merge ends by the signal, and what it made so far stays.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::build::hollow;
use crate::midway::{Midway, parents, tool_in};
use crate::support::{command, listing, snapshot};

const WORK: &str = ".child.partial";

/// A merge must have begun within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is stopped must be gone within this time: a second, and slack for a machine that is busy.
/// `scripts/faults.sh stop` measures it.
const STOP_TIME: Duration = Duration::from_secs(3);

fn interrupted_by(signal: Signal, ends_by: Signal, words: &str) {
    let dir = tempfile::tempdir().unwrap();
    parents(dir.path());
    let mut midway = Midway::begin(dir.path(), &["-o", "child"], WORK, 5);
    midway.signal(signal);
    let (run, ended_by) = midway.end();
    assert_eq!(ended_by, Some(ends_by.as_raw()), "{}", run.stderr);
    assert!(run.stderr.contains(words), "{}", run.stderr);
    assert!(run.stderr.contains("hint: the same command with --resume goes on"), "{}", run.stderr);
    assert!(run.stderr.contains("left on disk: .child.partial"), "{}", run.stderr);
    assert_eq!(listing(dir.path()), [WORK, "a", "b"]);
    let resume = ["merge", "a", "b", "-o", "child", "--resume", "-v"];
    let said = tool_in(dir.path(), &resume).success().stderr;
    assert!(said.contains("resuming: "), "{said}");
    assert_eq!(listing(dir.path()), ["a", "b", "child"]);
}

#[test]
fn sigint_ends_the_merge_by_the_signal_and_it_can_be_resumed() {
    interrupted_by(Signal::INT, Signal::INT, "error: interrupted");
}

#[test]
fn sigterm_ends_the_merge_by_the_signal_and_it_can_be_resumed() {
    interrupted_by(Signal::TERM, Signal::TERM, "error: terminated by a signal");
}

#[test]
fn a_terminal_that_went_away_ends_the_merge_and_it_can_be_resumed() {
    interrupted_by(Signal::HUP, Signal::TERM, "error: terminated: the terminal went away");
}

#[test]
fn a_second_signal_ends_the_merge_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    parents(dir.path());
    let mut midway = Midway::begin(dir.path(), &["-o", "child", "-q"], WORK, 5);
    // Both wait until the process goes on, and then come in the same instant.
    midway.signal(Signal::INT);
    midway.signal(Signal::TERM);
    let (run, ended_by) = midway.end();
    assert_eq!(run.stderr, "");
    assert!(ended_by.is_some());
    assert_eq!(listing(dir.path()), [WORK, "a", "b"]);
}

#[test]
fn a_hangup_that_was_ignored_at_the_start_stays_ignored() {
    let dir = tempfile::tempdir().unwrap();
    parents(dir.path());
    let mut run = std::process::Command::new("sh")
        .current_dir(dir.path())
        .args(["-c", "trap '' HUP; exec \"$0\" merge a b -o child -q --threads 1"])
        .arg(env!("CARGO_BIN_EXE_llm-slerp-merge"))
        .spawn()
        .unwrap();
    while crate::midway::finished(&dir.path().join(WORK)) < 2 && run.try_wait().unwrap().is_none() {
    }
    kill_process(Pid::from_child(&run), Signal::HUP).unwrap();
    assert!(run.wait().unwrap().success());
    assert_eq!(listing(dir.path()), ["a", "b", "child"]);
}

/// One tensor of 1 GB, in which there is no border between tensors to stop at.
#[test]
fn a_merge_stops_in_the_middle_of_a_tensor() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        hollow(&dir.path().join(name).join("pytorch_model.bin"), 500_000_000);
    }
    let mut run = command()
        .current_dir(dir.path())
        .args(["merge", "a", "b", "-o", "child", "--threads", "1", "--memory", "0"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !dir.path().join(WORK).join("journal.jsonl").exists() {
        assert!(started.elapsed() < PATIENCE && run.try_wait().unwrap().is_none(), "not started");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(50));
    kill_process(Pid::from_child(&run), Signal::INT).unwrap();
    let sent = Instant::now();
    run.wait().unwrap();
    assert!(sent.elapsed() < STOP_TIME, "{:?}", sent.elapsed());
    assert_eq!(listing(dir.path()), [WORK, "a", "b"]);
}

/// One tensor of 40 GB, of which nothing is on disk.
#[test]
fn a_check_stops_in_the_middle_of_a_tensor() {
    let dir = tempfile::tempdir().unwrap();
    hollow(&dir.path().join("a.bin"), 20_000_000_000);
    let mut run = command()
        .current_dir(dir.path())
        .args(["verify", "a.bin"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(run.try_wait().unwrap().is_none(), "ended by itself");
    kill_process(Pid::from_child(&run), Signal::TERM).unwrap();
    let sent = Instant::now();
    let status = run.wait().unwrap();
    assert!(sent.elapsed() < STOP_TIME, "{:?}", sent.elapsed());
    assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
}

#[test]
fn a_reader_of_stdout_that_went_away_does_not_fail_the_merge() {
    let dir = tempfile::tempdir().unwrap();
    let single = crate::support::fixture("reader/single.bin");
    let mut run = command()
        .current_dir(dir.path())
        .args(["merge".as_ref(), single.as_os_str(), single.as_os_str()])
        .args(["-o", "child", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(run.stdout.take());
    assert!(run.wait().unwrap().success());
    assert!(snapshot(&dir.path().join("child")).len() >= 2);
}

//! SIGINT and SIGTERM: the merge ends by the signal, and nothing is left.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::build::hollow;
use crate::support::{command, listing, snapshot};

/// Elements of each parent: 1 GB of float16, seconds of work, and nothing on disk.
const NUMEL: u64 = 500_000_000;

/// A stopped merge must be gone within this time.
const PATIENCE: Duration = Duration::from_secs(10);

fn interrupted_by(signal: Signal) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.bin", "b.bin"] {
        hollow(&dir.path().join(name), NUMEL);
    }
    let mut run = command()
        .current_dir(dir.path())
        .args(["merge", "a.bin", "b.bin", "-o", "child", "--threads", "1", "--memory", "0"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let half_made = dir.path().join(".child.partial/pytorch_model.bin");
    while !half_made.exists() {
        assert!(started.elapsed() < PATIENCE && run.try_wait().unwrap().is_none(), "not started");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(50));
    kill_process(Pid::from_child(&run), signal).unwrap();
    let sent = Instant::now();
    let status = run.wait().unwrap();
    assert!(sent.elapsed() < PATIENCE);
    assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
    assert_eq!(listing(dir.path()), ["a.bin", "b.bin"]);
}

#[test]
fn sigint_ends_the_merge_by_the_signal_and_leaves_nothing() {
    interrupted_by(Signal::INT);
}

#[test]
fn sigterm_ends_the_merge_by_the_signal_and_leaves_nothing() {
    interrupted_by(Signal::TERM);
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

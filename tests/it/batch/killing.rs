//! A batch that is killed or interrupted, and run again.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{batch, job, manifest, processes_in, results, run};
use crate::build::hollow;
use crate::support::{listing, snapshot};

/// What is waited for comes within this time.
const PATIENCE: Duration = Duration::from_secs(60);

fn wait_for(words: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "{words}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Ten merges, each a sweep of its own: the memory, which changes no child, differs.
fn ten() -> Value {
    let merge = |number: usize| {
        let family = ["llama", "gpt2", "neox"][number % 3];
        let [primary, secondary] = ["primary", "secondary"].map(|side| format!("{family}/{side}"));
        let mut merge = job(&primary, &secondary, &format!("out/{number}"), 0.3);
        merge["memory"] = json!(1_000_000 + number);
        merge
    };
    json!({ "merges": (0..10).map(merge).collect::<Vec<_>>() })
}

#[test]
fn a_run_after_another_one_was_killed_goes_on_in_its_file_or_starts_anew_for_other_options() {
    let dir = tempfile::tempdir().unwrap();
    hollow(&dir.path().join("big.bin"), 1 << 27);
    let merge = |dtype: &str| {
        let merge = json!({ "primary": "big.bin", "secondary": "big.bin", "output": "x",
            "threads": 1, "memory": 0, "dtype": dtype });
        manifest(dir.path(), &json!({ "merges": [merge] }))
    };
    let journal = dir.path().join(".x.partial/journal.jsonl");
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let kill = |manifest: &Path| {
        let mut child = batch(manifest, &[]).stderr(Stdio::null()).spawn().unwrap();
        wait_for("not started", || journal.exists());
        child.kill().unwrap();
        child.wait().unwrap();
        wait_for("orphans work on", || processes_in(dir.path()).is_empty());
        inode(&dir.path().join(".x.partial/pytorch_model.bin"))
    };
    let begun = kill(&merge("keep"));
    run(&merge("keep"), &[]).success();
    assert_eq!(inode(&dir.path().join("x/pytorch_model.bin")), begun);
    fs::remove_dir_all(dir.path().join("x")).unwrap();
    kill(&merge("keep"));
    let said = run(&merge("bfloat16"), &[]).success().stderr;
    assert!(said.contains("an interrupted run left is of no use"), "{said}");
    assert_eq!(listing(dir.path()), ["big.bin", "merges.json", "x"]);
}

/// Children that are complete, and those in the making.
fn begun(out: &Path) -> usize {
    fs::read_dir(out).map_or(0, Iterator::count)
}

#[test]
fn killed_at_ten_moments_and_run_again_the_children_are_those_of_a_clean_run() {
    let dir = tempfile::tempdir().unwrap();
    let [clean, killed] = ["clean", "killed"].map(|name| dir.path().join(name));
    fs::create_dir(&clean).unwrap();
    fs::create_dir(&killed).unwrap();
    run(&manifest(&clean, &ten()), &["--jobs", "2"]).success();
    let manifest = manifest(&killed, &ten());
    let out = killed.join("out");
    for moment in 0..10 {
        let mut child = batch(&manifest, &["--jobs", "2"]).stderr(Stdio::null()).spawn().unwrap();
        // Before anything is begun, then as each merge is.
        wait_for("no progress", || begun(&out) >= moment || child.try_wait().unwrap().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        wait_for("orphans work on", || processes_in(&killed).is_empty());
    }
    let last = run(&manifest, &["--jobs", "2", "--json"]).success();
    assert!(results(&last).contains(&"present".to_owned()), "{:?}", results(&last));
    assert!(snapshot(&out) == snapshot(&clean.join("out")));
}

#[test]
fn sigint_and_sigterm_reach_the_running_sweep_and_end_the_batch_by_the_signal() {
    for signal in [Signal::INT, Signal::TERM] {
        let dir = tempfile::tempdir().unwrap();
        hollow(&dir.path().join("big.bin"), 500_000_000);
        let slow = |output: &str| json!({ "primary": "big.bin", "secondary": "big.bin", "output": output, "memory": 0 });
        let merges = json!({ "defaults": { "threads": 1 }, "merges": [slow("x"), slow("y")] });
        let manifest = manifest(dir.path(), &merges);
        let mut child =
            batch(&manifest, &["--record", "record"]).stderr(Stdio::null()).spawn().unwrap();
        let half_made = dir.path().join(".x.partial/pytorch_model.bin");
        wait_for("not started", || half_made.exists());
        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
        assert!(processes_in(dir.path()).is_empty());
        // What is begun stays for the next run.
        assert_eq!(
            listing(dir.path()),
            [".x.partial", ".y.partial", "big.bin", "merges.json", "record"]
        );
        let record = fs::read_to_string(dir.path().join("record")).unwrap();
        assert_eq!(record.lines().count(), 2, "{record}");
    }
}

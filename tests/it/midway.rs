//! A merge that is stopped when it is half done.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use llm_slerp_merge::tensor::DType;
use rustix::process::{Pid, Signal, kill_process};

use crate::build::Dict;
use crate::support::{Run, command, listing};

/// Tensors of each parent.
pub(crate) const TENSORS: u64 = 40;

/// Elements of each tensor.
const NUMEL: u64 = 150_000;

/// A merge must get as far as it is waited for within this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes the parents `a` and `b` into `dir`: many small tensors.
pub(crate) fn parents(dir: &Path) {
    parents_of(dir, |dict| dict);
}

/// The same, changed by `change`.
pub(crate) fn parents_of(dir: &Path, change: impl Fn(Dict) -> Dict) {
    for (name, seed) in [("a", 1u64), ("b", 7)] {
        // float16 values from 0.5 up to 4, of both signs; each tensor begins elsewhere in them.
        let element = |i: u64| {
            let mixed = i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(21).wrapping_mul(seed);
            ((mixed & 0x8bff) | 0x3800) as u16
        };
        let all: Vec<u8> = (0..NUMEL + TENSORS).flat_map(|i| element(i).to_le_bytes()).collect();
        let mut dict = Dict::new();
        for tensor in 0..TENSORS {
            let [from, to] = [tensor, tensor + NUMEL].map(|i| usize::try_from(i * 2).unwrap());
            let bytes = all[from..to].to_vec();
            dict = dict.raw(&format!("layer.{tensor}.w"), DType::Float16, &[NUMEL], bytes);
        }
        change(dict).model(dir, name, "{}");
    }
}

/// A running merge of `a` and `b`.
pub(crate) struct Midway {
    pub(crate) run: Child,
}

impl Midway {
    /// Begins `merge a b` with `options` in `dir`, and stops it (SIGSTOP) when the journal in `work`
    /// tells of at least `tensors` tensors and not of all.
    pub(crate) fn begin(dir: &Path, options: &[&str], work: &str, tensors: usize) -> Midway {
        for _ in 0..50 {
            if let Some(midway) = Midway::attempt(dir, options, work, tensors) {
                return midway;
            }
        }
        panic!("the merge is always done before it is looked at");
    }

    fn attempt(dir: &Path, options: &[&str], work: &str, tensors: usize) -> Option<Midway> {
        let mut run = command()
            .current_dir(dir)
            .args(["merge", "a", "b", "--threads", "1"])
            .args(options)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let started = Instant::now();
        loop {
            assert!(started.elapsed() < PATIENCE, "not as far");
            if run.try_wait().unwrap().is_some() {
                let output = run.wait_with_output().unwrap();
                assert!(output.status.success(), "{output:?}");
                remove_children(dir);
                return None;
            }
            if finished(&dir.join(work)) >= tensors {
                break;
            }
        }
        let mut midway = Midway { run };
        midway.signal(Signal::STOP);
        // Stopped is what it is when the kernel says so.
        let stat = format!("/proc/{}/stat", midway.run.id());
        while fs::read_to_string(&stat)
            .is_ok_and(|text| text.contains(") R") || text.contains(") S"))
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        if finished(&dir.join(work)) < usize::try_from(TENSORS).unwrap() - 2
            && dir.join(work).exists()
        {
            return Some(midway);
        }
        midway.signal(Signal::CONT);
        assert!(midway.run.wait().unwrap().success());
        remove_children(dir);
        None
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.run), signal).unwrap();
    }

    /// Kills it at once.
    pub(crate) fn kill(mut self) {
        self.signal(Signal::KILL);
        assert_eq!(self.run.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    }

    /// Lets it go on to its end. The second value is the signal that ended it.
    pub(crate) fn end(mut self) -> (Run, Option<i32>) {
        self.signal(Signal::CONT);
        let output = self.run.wait_with_output().unwrap();
        let run = Run {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        (run, output.status.signal())
    }
}

/// Tensors that a journal tells of.
pub(crate) fn finished(work: &Path) -> usize {
    let text = fs::read(work.join("journal.jsonl")).unwrap_or_default();
    text.iter().filter(|byte| **byte == b'\n').count().saturating_sub(1)
}

/// Runs the tool in `dir` to its end.
pub(crate) fn tool_in(dir: &Path, options: &[&str]) -> Run {
    let output = command().current_dir(dir).args(options).output().unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn remove_children(dir: &Path) {
    for name in listing(dir).iter().filter(|name| name.starts_with("child")) {
        fs::remove_dir_all(dir.join(name)).unwrap();
    }
}

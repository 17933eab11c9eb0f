//! `batch`: manifests, sweeps, re-runs, kills.

mod killing;
mod planning;
mod running;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Run, command, fixture};

/// Writes a manifest and returns its path.
pub(crate) fn manifest(dir: &Path, value: &Value) -> PathBuf {
    let path = dir.join("merges.json");
    fs::write(&path, value.to_string()).unwrap();
    path
}

/// `batch` of a manifest, not started, in the manifest's directory.
fn batch(manifest: &Path, options: &[&str]) -> Command {
    let mut command = command();
    command.current_dir(manifest.parent().unwrap()).arg("batch").arg(manifest).args(options);
    command
}

/// `batch` of a manifest, to its end.
pub(crate) fn run(manifest: &Path, options: &[&str]) -> Run {
    let output = batch(manifest, options).output().unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The merge of two fixtures, as a manifest has it.
fn job(primary: &str, secondary: &str, output: &str, t: f64) -> Value {
    json!({ "primary": fixture(primary), "secondary": fixture(secondary), "output": output, "t": t })
}

/// How each merge ended, in the manifest's order, from `--json`.
pub(crate) fn results(run: &Run) -> Vec<String> {
    let value = run.json();
    let jobs = value["jobs"].as_array().unwrap().iter();
    jobs.map(|job| job["result"].as_str().unwrap().to_owned()).collect()
}

/// Lines of stderr that are errors.
fn errors(stderr: &str) -> Vec<&str> {
    stderr.lines().filter(|line| line.starts_with("error: ")).collect()
}

/// Ids of the processes whose working directory is `dir`.
fn processes_in(dir: &Path) -> Vec<i32> {
    let dir = dir.canonicalize().unwrap();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id: &i32| fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|cwd| cwd == dir))
        .collect()
}

//! What a batch makes, and what it leaves alone.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::planning::fifty;
use super::{batch, errors, job, manifest, processes_in, results, run};
use crate::build::{Dict, hollow};
use crate::support::{fixture, listing, merge, snapshot};

/// What a file is known by: a re-run that writes nothing changes none of it.
fn identities(dir: &Path) -> Vec<(PathBuf, u64, i64, i64)> {
    let entries = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter().map(Result::unwrap);
    let identity = |entry: walkdir::DirEntry| {
        let meta = entry.metadata().unwrap();
        (entry.into_path(), meta.ino(), meta.mtime(), meta.mtime_nsec())
    };
    entries.map(identity).collect()
}

#[test]
fn with_keep_going_the_sound_merges_of_fifty_are_made_and_a_second_run_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = manifest(dir.path(), &fifty());
    let options = ["--keep-going", "--json", "--record", "record", "--jobs", "2"];
    let first = run(&manifest, &options);
    assert_eq!(first.code, Some(1), "{}", first.stderr);
    assert_eq!(errors(&first.stderr).len(), 3);
    let expected = |word: &str| -> Vec<String> {
        let of = |number| if [7, 20, 33].contains(&number) { "refused" } else { word };
        (0..50).map(|number| of(number).to_owned()).collect()
    };
    assert_eq!(results(&first), expected("merged"));
    let out = dir.path().join("out");
    assert_eq!(listing(&out).len(), 47);
    // As a merge alone makes them.
    for number in [1, 8, 49] {
        let job = &fifty()["merges"][number];
        let path = |key: &str| PathBuf::from(job[key].as_str().unwrap());
        let alone = dir.path().join("alone");
        let t = job["t"].to_string();
        merge(&path("primary"), &path("secondary"), &alone, &["-t", &t]).success();
        assert!(snapshot(&alone) == snapshot(&out.join(number.to_string())), "{number}");
        fs::remove_dir_all(alone).unwrap();
    }
    let before = identities(&out);
    let second = run(&manifest, &options);
    assert_eq!(second.code, Some(1), "{}", second.stderr);
    assert_eq!(results(&second), expected("present"));
    assert_eq!(identities(&out), before);
    let record = fs::read_to_string(dir.path().join("record")).unwrap();
    let lines: Vec<Value> =
        record.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 100);
    assert_eq!(lines.iter().filter(|line| line["result"] == "merged").count(), 47);
}

#[test]
fn five_t_over_one_pair_are_one_sweep_that_reads_the_parents_once() {
    let dir = tempfile::tempdir().unwrap();
    let pair = |t: f64| job("llama/primary", "llama/secondary", "child-{t}", t);
    let one = manifest(dir.path(), &json!({ "merges": [pair(0.5)] }));
    let alone = run(&one, &["--json"]).success().json()["jobs"][0]["bytes_read"].clone();
    assert!(alone.as_u64().unwrap() > 100_000);
    let five = json!({ "merges": ([0.1, 0.2, 0.3, 0.4, 0.6].map(pair)) });
    let five = manifest(dir.path(), &five);
    let jobs = run(&five, &["--json"]).success().json()["jobs"].clone();
    for job in jobs.as_array().unwrap() {
        assert_eq!(job["sweep"], json!([0, 1, 2, 3, 4]));
        assert_eq!(job["bytes_read"], alone);
    }
    assert_eq!(listing(dir.path()).len(), 7);
}

#[test]
fn a_merge_that_fails_stops_the_others_only_with_fail_fast() {
    let dir = tempfile::tempdir().unwrap();
    let noise = Dict::new().noise("w", &[4, 4], 1);
    noise.bare(dir.path(), "a");
    Dict::new().f32("w", &[4, 4], &[f64::NAN; 16]).bare(dir.path(), "nan");
    let job = |secondary: &str, output: &str| json!({ "primary": "a", "secondary": secondary, "output": output, "no-fsync": true });
    let merges = json!({ "merges": [job("nan", "x"), job("a", "y")] });
    let manifest = manifest(dir.path(), &merges);
    let stopped = run(&manifest, &["--fail-fast", "--json"]);
    assert_eq!(stopped.code, Some(1), "{}", stopped.stderr);
    assert_eq!(results(&stopped), ["failed", "not-run"]);
    assert_eq!(listing(dir.path()), ["a", "merges.json", "nan"]);
    let gone_on = run(&manifest, &["--json"]);
    assert_eq!(gone_on.code, Some(1));
    assert_eq!(results(&gone_on), ["failed", "merged"]);
    let error = &gone_on.json()["jobs"][0]["errors"][0];
    assert_eq!(error["exit_code"], 65);
    assert!(error["message"].as_str().unwrap().contains("NaN"), "{error}");
    assert_eq!(listing(dir.path()), ["a", "merges.json", "nan", "y"]);
}

#[test]
fn a_child_that_spoils_its_sweep_fails_alone() {
    let dir = tempfile::tempdir().unwrap();
    let half = llm_slerp_merge::tensor::DType::Float16;
    Dict::new().with("w", half, &[2], &[6e4, 6e4]).bare(dir.path(), "a");
    Dict::new().with("w", half, &[2], &[6e4, -6e4]).bare(dir.path(), "b");
    // At right angles: halfway the first element is 6e4·√2, which float16 does not hold.
    let job = |t: f64| json!({ "primary": "a", "secondary": "b", "output": "c-{t}", "t": t });
    let manifest = manifest(dir.path(), &json!({ "merges": [job(0.0), job(0.5), job(1.0)] }));
    let run = run(&manifest, &["--json"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert_eq!(results(&run), ["merged", "failed", "merged"]);
    assert_eq!(listing(dir.path()), ["a", "b", "c-0", "c-1", "merges.json"]);
}

#[test]
fn a_child_that_does_not_match_is_refused_and_replaced_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let mut merge = job("neox/primary", "neox/secondary", "child", 0.5);
    run(&manifest(dir.path(), &json!({ "merges": [merge] })), &[]).success();
    let config = dir.path().join("child/config.json");
    let text = fs::read_to_string(&config).unwrap();
    for (change, words) in [
        (json!({ "t": 0.25 }), "another t"),
        (json!({ "extend": "mean" }), "other options"),
        (json!({ "secondary": fixture("neox/primary") }), "another secondary"),
        (json!({}), "its config.json differs"),
    ] {
        let mut changed = merge.clone();
        changed.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        if words.contains("config") {
            fs::write(&config, text.replace("hidden", "Hidden")).unwrap();
        }
        let manifest = manifest(dir.path(), &json!({ "merges": [changed] }));
        let said = run(&manifest, &[]).refused(1);
        assert!(said.contains(words) && said.contains("overwrite"), "{said}");
    }
    merge["overwrite"] = json!(true);
    let manifest = manifest(dir.path(), &json!({ "merges": [merge] }));
    assert_eq!(results(&run(&manifest, &["--json"]).success()), ["merged"]);
    assert_eq!(fs::read_to_string(&config).unwrap(), text);
    assert_eq!(results(&run(&manifest, &["--json"]).success()), ["present"]);
}

#[test]
fn a_sweep_that_is_killed_fails_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    hollow(&dir.path().join("big.bin"), 1 << 28);
    let small = fixture("reader/single.bin");
    let merges = json!({ "merges": [
        { "primary": "big.bin", "secondary": "big.bin", "output": "x", "threads": 1, "memory": 0 },
        { "primary": small, "secondary": small, "output": "y" },
    ] });
    let manifest = manifest(dir.path(), &merges);
    let child = batch(&manifest, &["--json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !dir.path().join(".x.partial/pytorch_model.bin").exists() {
        assert!(started.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(2));
    }
    let own = i32::try_from(child.id()).unwrap();
    let sweep = processes_in(dir.path()).into_iter().find(|id| *id != own).unwrap();
    kill_process(Pid::from_raw(sweep).unwrap(), Signal::KILL).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["jobs"][0]["result"], "failed");
    let message = value["jobs"][0]["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("signal 9"), "{message}");
    assert_eq!(value["jobs"][1]["result"], "merged");
}

#[test]
fn sweeps_share_a_devices_workers_and_memory() {
    let dir = tempfile::tempdir().unwrap();
    let merges = [0.1, 0.9].map(|t| {
        json!({
            "primary": fixture("llama/primary"), "secondary": fixture("llama/secondary"),
            "output": format!("child-{t}"), "t": t, "device": "cuda",
            // Sweeps of their own.
            "max-shard-size": if t < 0.5 { "1GB" } else { "2GB" },
        })
    });
    let shared = manifest(dir.path(), &json!({ "merges": merges }));
    let said = |options: &[&str]| {
        let mut command = batch(&shared, options);
        command.env("LLM_SLERP_MERGE_TEST_DEVICES", "devices=1,memory=1GiB");
        let output = command.env("RUST_LOG", "info").output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        let shares: Vec<String> = text
            .lines()
            .filter_map(|line| Some(line.split_once("workers on cuda:0: ")?.1.to_owned()))
            .collect();
        for t in ["0.1", "0.9"] {
            fs::remove_dir_all(dir.path().join(format!("child-{t}"))).unwrap();
        }
        shares
    };
    let shares = |options: &[&str]| -> Vec<(u64, f64)> {
        let share = |text: String| {
            let (workers, rest) = text.split_once(", each with ").unwrap();
            (workers.parse().unwrap(), rest.split(' ').next().unwrap().parse().unwrap())
        };
        said(options).into_iter().map(share).collect()
    };
    for (jobs, workers) in [("1", 16), ("4", 4), ("16", 1)] {
        let shares = shares(&["--threads", "224", "--jobs", jobs]);
        assert_eq!(shares.len(), 2);
        for (found, megabytes) in shares {
            assert_eq!(found, workers, "{jobs}");
            // All that may run at once together take half of the device's 1074 MB at most.
            let all = jobs.parse::<f64>().unwrap() * workers as f64 * megabytes;
            assert!(all <= 537.0, "{jobs}: {all} MB");
        }
    }
}

//! `--require-checksums` and `--no-follow`: parents that are fine and refused all the same.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::build::{Dict, hollow};
use crate::support::{Run, fixture, listing, tool};

/// Runs a command of two parents, or `verify` of the first.
fn run(command: &str, [a, b]: [&Path; 2], out: &Path, options: &[&str]) -> Run {
    let mut words = vec![command.as_ref(), a.as_os_str()];
    if command != "verify" {
        words.extend([b.as_os_str(), "-o".as_ref(), out.as_os_str()]);
    }
    words.extend(options.iter().map(std::ffi::OsStr::new));
    tool(words)
}

/// A bare model whose bytes carry no CRC, and one of the same tensors that has them.
fn without_and_with_sums(dir: &Path) -> [PathBuf; 2] {
    let [without, with] = ["without", "with"].map(|name| dir.join(name));
    fs::create_dir(&without).unwrap();
    hollow(&without.join("pytorch_model.bin"), 64);
    fs::create_dir(&with).unwrap();
    let zeros = vec![0; 128];
    let dict = Dict::new().raw("w", llm_slerp_merge::tensor::DType::Float16, &[64], zeros);
    dict.file(&with.join("pytorch_model.bin"));
    [without, with]
}

#[test]
fn bytes_without_a_checksum_are_taken_unless_checksums_are_required() {
    let dir = tempfile::tempdir().unwrap();
    let [without, with] = without_and_with_sums(dir.path());
    let out = dir.path().join("child");
    for command in ["plan", "verify", "merge"] {
        run(command, [&without, &with], &out, &[]).success();
    }
    fs::remove_dir_all(&out).unwrap();
    for parents in [[&*without, &with], [&with, &without]] {
        for command in ["plan", "merge"] {
            let said = run(command, parents, &out, &["--require-checksums"]).refused(65);
            let words = "without/pytorch_model.bin: expected a CRC-32 of every record";
            assert!(said.contains(words) && said.contains("/data/0`"), "{said}");
            assert!(said.contains("hint: "), "{said}");
        }
    }
    assert!(!out.exists());
    run("merge", [&with, &with], &out, &["--require-checksums"]).success();
    // What the tool writes has them all.
    run("verify", [&out, &out], &out, &["--require-checksums"]).success();
}

#[test]
fn verify_calls_missing_checksums_an_error_where_they_are_required() {
    let dir = tempfile::tempdir().unwrap();
    let [without, _] = without_and_with_sums(dir.path());
    // A zip whose record has no CRC, and the format of torch before 1.6.
    for (model, what) in [(without, "unchecked"), (fixture("gpt2/primary"), "legacy")] {
        for (options, severity, code) in
            [(&["--json"][..], "note", 0), (&["--json", "--require-checksums"], "error", 65)]
        {
            let run = run("verify", [&model, &model], dir.path(), options);
            assert_eq!(run.code, Some(code), "{what}");
            let findings = run.json()["models"][0]["findings"].clone();
            let finding = findings.as_array().unwrap().iter().find(|one| one["what"] == what);
            assert_eq!(finding.unwrap()["severity"], severity);
        }
    }
    let both = [fixture("gpt2/primary"), fixture("gpt2/secondary")];
    let out = dir.path().join("child");
    let said = run("plan", [&both[0], &both[1]], &out, &["--require-checksums"]).refused(65);
    assert!(said.contains("torch before 1.6"), "{said}");
}

/// A model whose files are links to another directory's, as in the Hub's cache.
fn linked(dir: &Path, name: &str) -> PathBuf {
    let [blobs, model] = ["blobs", name].map(|name| dir.join(name));
    fs::create_dir_all(&blobs).unwrap();
    fs::create_dir_all(&model).unwrap();
    for file in listing(&fixture("llama/primary")) {
        fs::copy(fixture("llama/primary").join(&file), blobs.join(&file)).unwrap();
        symlink(format!("../blobs/{file}"), model.join(&file)).unwrap();
    }
    model
}

#[test]
fn links_out_of_the_directory_are_followed_unless_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let hub = linked(dir.path(), "hub");
    let [whole, out] = [fixture("llama/primary"), dir.path().join("child")];
    for command in ["plan", "verify", "merge"] {
        run(command, [&hub, &whole], &out, &[]).success();
    }
    fs::remove_dir_all(&out).unwrap();
    for command in ["plan", "merge"] {
        let said = run(command, [&hub, &whole], &out, &["--no-follow"]).refused(65);
        assert!(said.contains("a link leads out of the parent's directory"), "{said}");
        assert!(said.contains("blobs/config.json") && said.contains("hint: "), "{said}");
        run("plan", [&whole, &whole], &out, &["--no-follow"]).success();
    }
    assert!(!out.exists());
    let verified = run("verify", [&hub, &hub], &out, &["--no-follow", "--json"]);
    assert_eq!(verified.code, Some(65));
    // One finding for each link.
    assert_eq!(verified.json()["models"][0]["errors"], listing(&hub).len());
}

#[test]
fn one_link_of_any_file_is_enough_and_links_inside_are_fine() {
    let dir = tempfile::tempdir().unwrap();
    let [model, out] = ["model", "child"].map(|name| dir.path().join(name));
    fs::create_dir(&model).unwrap();
    for file in listing(&fixture("llama/primary")) {
        fs::copy(fixture("llama/primary").join(&file), model.join(&file)).unwrap();
    }
    let names = ["pytorch_model-00002-of-00004.bin", "tokenizer.json", "config.json"];
    for name in names {
        let [own, kept, outside] =
            [model.join(name), model.join("kept"), dir.path().join("outside")];
        fs::rename(&own, &kept).unwrap();
        symlink("kept", &own).unwrap();
        run("plan", [&model, &model], &out, &["--no-follow"]).success();
        fs::rename(&kept, &outside).unwrap();
        fs::remove_file(&own).unwrap();
        symlink("../outside", &own).unwrap();
        run("plan", [&model, &model], &out, &[]).success();
        let said = run("plan", [&model, &model], &out, &["--no-follow"]).refused(65);
        assert!(said.contains(&format!("model/{name}: expected a file of its own")), "{said}");
        // A single file that is named may not lead away either.
        if name.ends_with(".bin") {
            run("verify", [&own, &own], &out, &[]).success();
            run("verify", [&own, &own], &out, &["--no-follow"]).refused(65);
        }
        fs::remove_file(&own).unwrap();
        fs::rename(&outside, &own).unwrap();
    }
}

#[test]
fn a_manifest_may_ask_for_both() {
    let dir = tempfile::tempdir().unwrap();
    let [without, with] = without_and_with_sums(dir.path());
    let hub = linked(dir.path(), "hub");
    let merge = |primary: &Path, secondary: &Path, output: &str, option: &str, on: bool| json!({ "primary": primary, "secondary": secondary, "output": output, option: on });
    let whole = fixture("llama/primary");
    let merges = json!({ "merges": [
        merge(&without, &with, "a", "require-checksums", true),
        merge(&without, &with, "b", "require-checksums", false),
        merge(&whole, &hub, "c", "no-follow", true),
        merge(&whole, &hub, "d", "no-follow", false),
    ]});
    let manifest = dir.path().join("merges.json");
    fs::write(&manifest, merges.to_string()).unwrap();
    let words = ["batch".as_ref(), manifest.as_os_str(), "--dry-run".as_ref()];
    let run = tool(words.into_iter().chain(["--keep-going".as_ref(), "--json".as_ref()]));
    let jobs = run.json()["jobs"].as_array().unwrap().clone();
    let refused: Vec<bool> = jobs.iter().map(|job| job["result"] == "refused").collect();
    assert_eq!(refused, [true, false, true, false], "{}", run.stdout);
}

//! Outputs that are refused, and outputs that are replaced.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::build::Dict;
use crate::support::{child_bytes, listing, merge, parent_bytes, snapshot};

/// A directory with the parents `models/a` and `models/b`.
fn parents() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let models = dir.path().join("models");
    fs::create_dir(&models).unwrap();
    let a = Dict::new().noise("w", &[4, 4], 1).model(&models, "a", "{}");
    let b = Dict::new().noise("w", &[4, 4], 2).model(&models, "b", "{}");
    (dir, a, b)
}

#[track_caller]
fn refused(dir: &Path, [a, b]: [&Path; 2], out: &Path, options: &[&str], words: &str) {
    let before = snapshot(dir);
    let said = merge(a, b, out, options).refused(73);
    assert!(said.contains(words) && said.contains("hint: "), "{said}");
    let name = out.file_name().unwrap().to_str().unwrap();
    assert!(said.contains(name), "{said}");
    assert!(snapshot(dir) == before, "something was left or changed");
}

#[test]
fn an_output_with_files_in_it_is_refused_and_replaced_when_asked() {
    let (dir, a, b) = parents();
    let out = dir.path().join("child");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("pytorch_model-00001-of-00009.bin"), b"stale").unwrap();
    refused(dir.path(), [&a, &b], &out, &[], "output exists");
    merge(&a, &b, &out, &["-t", "0", "--overwrite"]).success();
    assert_eq!(listing(&out), ["config.json", "pytorch_model.bin", "slerp_merge.json"]);
    assert_eq!(child_bytes(&out), parent_bytes(&a));
    merge(&a, &b, &out, &["-t", "1", "--overwrite"]).success();
    assert_eq!(child_bytes(&out), parent_bytes(&b));
    assert_eq!(listing(dir.path()), ["child", "models"]);
}

#[test]
fn an_empty_output_directory_is_filled() {
    let (dir, a, b) = parents();
    let out = dir.path().join("child");
    fs::create_dir(&out).unwrap();
    merge(&a, &b, &out, &[]).success();
    assert_eq!(listing(dir.path()), ["child", "models"]);
}

#[test]
fn a_refused_merge_leaves_the_child_that_was_to_be_replaced() {
    let (dir, a, _) = parents();
    let bad = Dict::new().f32("w", &[4, 4], &[f64::NAN; 16]).bare(dir.path(), "bad");
    let out = dir.path().join("child");
    merge(&a, &a, &out, &[]).success();
    let before = snapshot(dir.path());
    merge(&a, &bad, &out, &["--overwrite"]).refused(65);
    assert!(snapshot(dir.path()) == before);
}

#[test]
fn an_output_equal_to_in_or_around_a_parent_is_refused_through_links_too() {
    let (dir, a, b) = parents();
    let link = dir.path().join("link");
    symlink(dir.path().join("models"), &link).unwrap();
    for options in [&[][..], &["--overwrite"]] {
        for (out, words) in [
            (a.clone(), "output is a parent"),
            (link.join("b"), "output is a parent"),
            (a.join("child"), "output is inside a parent"),
            (link.join("b/child"), "output is inside a parent"),
            (dir.path().join("models"), "a parent is inside the output"),
        ] {
            refused(dir.path(), [&a, &b], &out, options, words);
        }
    }
}

#[test]
fn a_file_or_a_link_at_the_output_is_refused() {
    let (dir, a, b) = parents();
    let file = dir.path().join("file");
    fs::write(&file, b"mine").unwrap();
    let dangling = dir.path().join("dangling");
    symlink(dir.path().join("nowhere"), &dangling).unwrap();
    let before = snapshot(dir.path());
    let said = merge(&a, &b, &file, &["--overwrite"]).refused(73);
    assert!(said.contains("output exists and is no directory"), "{said}");
    let said = merge(&a, &b, &dangling, &["--overwrite"]).refused(73);
    assert!(said.contains("output is a symbolic link"), "{said}");
    assert!(snapshot(dir.path()) == before);
}

#[test]
fn two_runs_to_one_output_do_not_meet() {
    let (dir, a, b) = parents();
    let held = dir.path().join(".child.partial");
    fs::create_dir(&held).unwrap();
    let lock = fs::File::open(&held).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let out = dir.path().join("child");
    let said = merge(&a, &b, &out, &[]).refused(75);
    assert!(said.contains("another run is writing this output"), "{said}");
    assert!(said.contains("child") && said.contains("hint: "), "{said}");
    assert_eq!(listing(dir.path()), [".child.partial", "models"]);
    // A dead run's remains are cleared away.
    drop(lock);
    fs::write(held.join("pytorch_model.bin"), b"half").unwrap();
    merge(&a, &b, &out, &[]).success();
    assert_eq!(listing(dir.path()), ["child", "models"]);
    assert_eq!(listing(&out), ["config.json", "pytorch_model.bin", "slerp_merge.json"]);
}

#[test]
fn missing_directories_above_the_output_are_made_and_a_refused_merge_makes_none() {
    let (dir, a, b) = parents();
    let bad = Dict::new().f32("w", &[4, 4], &[f64::INFINITY; 16]).bare(dir.path(), "bad");
    let out = dir.path().join("new/deep/child");
    let before = snapshot(dir.path());
    merge(&a, &bad, &out, &[]).refused(65);
    assert!(snapshot(dir.path()) == before, "{:?}", listing(dir.path()));
    merge(&a, &b, &out, &[]).success();
    assert!(out.join("pytorch_model.bin").exists());
}

#[test]
fn a_plan_writes_nothing() {
    let (dir, a, b) = parents();
    let before = snapshot(dir.path());
    let out = dir.path().join("child");
    let words = ["plan".as_ref(), a.as_os_str(), b.as_os_str(), "-o".as_ref(), out.as_os_str()];
    let run = crate::support::tool(words).success();
    assert!(run.stdout.contains("slerp"), "{}", run.stdout);
    assert!(snapshot(dir.path()) == before);
}

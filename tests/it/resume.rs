//! Interrupted merges that are resumed.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::midway::{Midway, TENSORS, finished, parents, tool_in};
use crate::support::{listing, snapshot};

const WORK: &str = ".child.partial";

/// Both parents, and a merge of them into `child` that was killed midway.
fn killed(options: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    parents(dir.path());
    let options: Vec<&str> = ["-o", "child"].iter().chain(options).copied().collect();
    Midway::begin(dir.path(), &options, WORK, 5).kill();
    assert_eq!(listing(dir.path()), [WORK, "a", "b"]);
    dir
}

/// Merges with `options`, and once more without interruption: nothing may differ.
fn resumed_equals_uninterrupted(dir: &Path, options: &[&str], child: &str) -> String {
    let words: Vec<&str> = ["merge", "a", "b", "-v"].iter().chain(options).copied().collect();
    let run = tool_in(dir, &words).success();
    let aside = dir.join("resumed");
    fs::rename(dir.join(child), &aside).unwrap();
    let again: Vec<&str> = words.into_iter().filter(|word| *word != "--resume").collect();
    tool_in(dir, &again).success();
    assert!(snapshot(&dir.join(child)) == snapshot(&aside), "another child");
    assert!(!listing(&aside).iter().any(|name| name.contains("journal")));
    run.stderr
}

/// Tensors that a resumed merge found whole.
fn kept(said: &str) -> usize {
    let line = said.lines().find(|line| line.contains("resuming: ")).unwrap();
    let words = line.split("resuming: ").nth(1).unwrap();
    words.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_killed_merge_is_resumed_to_the_same_child() {
    let dir = killed(&[]);
    let there = finished(&dir.path().join(WORK));
    let said = resumed_equals_uninterrupted(dir.path(), &["-o", "child", "--resume"], "child");
    assert_eq!(kept(&said), there, "{said}");
    assert_eq!(listing(dir.path()), ["a", "b", "child", "resumed"]);
}

#[test]
fn damaged_data_and_torn_journal_lines_are_made_again() {
    let dir = killed(&[]);
    let work = dir.path().join(WORK);
    let there = finished(&work);
    let text = fs::read_to_string(work.join("journal.jsonl")).unwrap();
    let entry: serde_json::Value = serde_json::from_str(text.lines().nth(2).unwrap()).unwrap();
    let offset = entry["entry"]["offset"].as_u64().unwrap();
    let weights = work.join("pytorch_model.bin");
    let file = OpenOptions::new().read(true).write(true).open(weights).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset + 100).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset + 100).unwrap();
    fs::write(work.join("journal.jsonl"), &text[..text.len() - 3]).unwrap();
    let said = resumed_equals_uninterrupted(dir.path(), &["-o", "child", "--resume"], "child");
    assert_eq!(kept(&said), there - 2, "{said}");
}

#[test]
fn weights_that_a_power_cut_took_are_made_again() {
    let dir = killed(&[]);
    let work = dir.path().join(WORK);
    fs::remove_file(work.join("pytorch_model.bin")).unwrap();
    let said = resumed_equals_uninterrupted(dir.path(), &["-o", "child", "--resume"], "child");
    assert_eq!(kept(&said), 0, "{said}");
}

#[test]
fn a_resumed_merge_can_be_killed_and_resumed_again() {
    let dir = killed(&[]);
    let work = dir.path().join(WORK);
    let there = finished(&work);
    Midway::begin(dir.path(), &["-o", "child", "--resume"], WORK, there + 1).kill();
    assert!(finished(&work) > there);
    resumed_equals_uninterrupted(dir.path(), &["-o", "child", "--resume"], "child");
}

#[test]
fn another_merge_is_not_resumed_and_the_difference_is_named() {
    let dir = killed(&[]);
    let before = snapshot(dir.path());
    for (options, words) in [
        (&["--method", "linear"][..], "options: method \"slerp\", found \"linear\""),
        (&["-t", "0.25"], "expected t 0.5, found 0.25"),
        (&["--dtype", "bfloat16"], "options: dtype"),
    ] {
        let base = ["merge", "a", "b", "-o", "child", "--resume"];
        let words_of: Vec<&str> = base.iter().chain(options).copied().collect();
        let said = tool_in(dir.path(), &words_of).refused(65);
        assert!(said.contains("another merge was interrupted here"), "{said}");
        assert!(said.contains(words) && said.contains("left on disk: .child.partial"), "{said}");
        assert!(snapshot(dir.path()) == before);
    }
    // The same bytes, written later.
    let weights = dir.path().join("b/pytorch_model.bin");
    fs::write(&weights, fs::read(&weights).unwrap()).unwrap();
    let said = tool_in(dir.path(), &["merge", "a", "b", "-o", "child", "--resume"]).refused(75);
    assert!(said.contains("a parent changed since"), "{said}");
    assert!(said.contains("secondary: files: pytorch_model.bin: modified_ns"), "{said}");
    assert!(snapshot(dir.path()) == before);
}

#[test]
fn without_resume_what_was_left_is_removed() {
    let dir = killed(&[]);
    let said = tool_in(dir.path(), &["merge", "a", "b", "-o", "child"]).success().stderr;
    assert!(said.contains("removed what an interrupted run left in .child.partial"), "{said}");
    assert_eq!(listing(dir.path()), ["a", "b", "child"]);
}

#[test]
fn with_nothing_to_resume_the_merge_begins_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    parents(dir.path());
    let merge = ["merge", "a", "b", "-o", "child", "--resume"];
    let said = tool_in(dir.path(), &merge).success().stderr;
    assert!(said.contains("nothing to resume for child"), "{said}");
    let before = snapshot(dir.path());
    let said = tool_in(dir.path(), &merge).success().stderr;
    assert!(said.contains("`child`: complete already"), "{said}");
    assert!(snapshot(dir.path()) == before);
    // Another child stays, too.
    let merge = ["merge", "a", "b", "-o", "child", "--resume", "-t", "0.25"];
    assert!(tool_in(dir.path(), &merge).refused(73).contains("output exists"));
    assert!(snapshot(dir.path()) == before);
}

#[test]
fn several_children_are_resumed_together_also_when_one_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    parents(dir.path());
    let work = ".child-0.25.partial";
    let merge = ["-o", "child-{t}", "-t", "0.25,0.75", "--overwrite"];
    Midway::begin(dir.path(), &merge, work, 5).kill();
    assert_eq!(listing(dir.path()), [work, ".child-0.75.partial", "a", "b"]);
    // As if the crash had come between the two renames.
    let one = ["merge", "a", "b", "-o", "child-0.75", "-t", "0.75"];
    tool_in(dir.path(), &one).success();
    let whole = snapshot(&dir.path().join("child-0.75"));
    let there = finished(&dir.path().join(work));
    let merge = ["merge", "a", "b", "-o", "child-{t}", "-t", "0.25,0.75", "--resume", "-v"];
    let said = tool_in(dir.path(), &merge).success().stderr;
    assert_eq!(kept(&said), there, "{said}");
    assert!(said.contains("child-0.75 is complete"), "{said}");
    assert!(snapshot(&dir.path().join("child-0.75")) == whole);
    let one = ["merge", "a", "b", "-o", "alone", "-t", "0.25"];
    tool_in(dir.path(), &one).success();
    let weights = |name: &str| fs::read(dir.path().join(name).join("slerp_merge.json")).unwrap();
    assert!(weights("alone") == weights("child-0.25"));
    assert_eq!(listing(dir.path()), ["a", "alone", "b", "child-0.25", "child-0.75"]);
}

#[test]
fn a_replacement_is_resumed_and_the_old_child_stays_until_then() {
    let dir = tempfile::tempdir().unwrap();
    parents(dir.path());
    tool_in(dir.path(), &["merge", "a", "b", "-o", "child", "-t", "0"]).success();
    let old: PathBuf = dir.path().join("child");
    let before = snapshot(&old);
    fs::rename(&old, dir.path().join("old")).unwrap();
    Midway::begin(dir.path(), &["-o", "child", "--overwrite"], WORK, 5).kill();
    fs::rename(dir.path().join("old"), &old).unwrap();
    assert!(snapshot(&old) == before);
    let merge = ["merge", "a", "b", "-o", "child", "--overwrite", "--resume", "-v"];
    let said = tool_in(dir.path(), &merge).success().stderr;
    assert!(kept(&said) >= 5 && kept(&said) < usize::try_from(TENSORS).unwrap(), "{said}");
    assert!(snapshot(&old) != before);
    assert_eq!(listing(dir.path()), ["a", "b", "child"]);
}

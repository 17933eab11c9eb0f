//! The order of tensors in shards that were closed out of turn: transformers' own saves, byte for byte.

use std::fs;
use std::path::{Path, PathBuf};

use crate::build::{Dict, sharded};
use crate::support::{fixture, merge, tool};

/// (model, bytes of a shard), as scripts/fixtures/wild/order.py saved them.
const MODELS: [(&str, &str); 6] = [
    ("deberta", "3000"),
    ("t5", "1500"),
    ("gpt2", "600"),
    ("bert", "1000"),
    ("llama", "700"),
    ("phi3", "100"),
];

fn saved(model: &str, label: &str) -> PathBuf {
    fixture("wild/order").join(model).join(label)
}

/// Weight files and index by name.
fn weights(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
        .filter(|(name, _)| name.starts_with("pytorch_model"))
        .map(|(name, path)| (name, fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Names of the tensors that the tool finds, in its order.
fn order(model: &Path) -> Vec<String> {
    let listed = tool(["inspect".as_ref(), model.as_os_str(), "--json".as_ref()]).success().json();
    let tensors = listed["tensors"].as_array().unwrap();
    tensors.iter().map(|tensor| tensor["name"].as_str().unwrap().to_owned()).collect()
}

/// Asserts that the child has the bytes that transformers saved. A parent merged with itself is
/// itself to the bit.
#[track_caller]
fn is_saved_as(parents: [&Path; 2], shard_bytes: &str, expected: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("child");
    let [a, b] = parents;
    merge(a, b, &out, &["--max-shard-size", shard_bytes]).success();
    let (ours, theirs) = (weights(&out), weights(expected));
    let names = |files: &[(String, Vec<u8>)]| -> Vec<String> {
        files.iter().map(|file| file.0.clone()).collect()
    };
    assert_eq!(names(&ours), names(&theirs));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert!(ours == theirs, "{} differs", ours.0);
    }
}

#[test]
fn a_model_in_shards_is_found_in_the_order_that_its_one_file_has() {
    for (model, _) in MODELS {
        assert_eq!(order(&saved(model, "sharded")), order(&saved(model, "whole")), "{model}");
    }
}

#[test]
fn a_child_of_shards_equals_what_transformers_saves_in_one_file_and_in_shards() {
    for (model, shard_bytes) in MODELS {
        let (shards, whole) = (saved(model, "sharded"), saved(model, "whole"));
        is_saved_as([&shards, &shards], "5GB", &whole);
        is_saved_as([&shards, &shards], shard_bytes, &shards);
        is_saved_as([&whole, &shards], shard_bytes, &shards);
    }
}

#[test]
fn a_secondary_of_one_file_tells_the_order_where_the_primarys_shards_leave_it_open() {
    let (shards, whole) = (saved("unknown", "sharded"), saved("unknown", "whole"));
    assert_ne!(order(&shards), order(&whole), "the shards tell it themselves");
    is_saved_as([&shards, &whole], "5GB", &whole);
    is_saved_as([&shards, &whole], "1000", &shards);
}

#[test]
fn shards_that_no_limit_explains_keep_the_order_of_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["z.w", "y.w", "x.w", "w.w", "v.w"];
    let dict = |names: &[&str]| {
        names.iter().fold(Dict::new(), |dict, name| dict.noise(name, &[4, 4], name.len() as u64))
    };
    let shards = [dict(&names[..1]), dict(&names[1..4]), dict(&names[4..])];
    assert_eq!(order(&sharded(dir.path(), "by_hand", &shards)), names);
}

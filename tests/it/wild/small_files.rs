//! The small files beside the weights.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::build::Dict;
use crate::support::{command, fixture, listing, merge, run, run_as_plain_user, snapshot, tool};

/// A model with six rows and these files.
pub(super) fn model(dir: &Path, name: &str, seed: u64, files: &[(&str, &[u8])]) -> PathBuf {
    let dict = Dict::new().noise("model.embed_tokens.weight", &[6, 4], seed);
    let path = dict.model(dir, name, "{\"model_type\": \"llama\", \"vocab_size\": 6}");
    files.iter().for_each(|(name, bytes)| write(&path, name, bytes));
    path
}

pub(super) fn write(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Paths of the files of a child, but for those that every child has.
pub(super) fn files(child: &Path) -> Vec<String> {
    let always = ["config.json", "pytorch_model.bin", "slerp_merge.json"];
    let all = snapshot(child).into_keys().filter(|path| child.join(path).is_file());
    all.map(|path| path.into_os_string().into_string().unwrap())
        .filter(|name| !always.contains(&name.as_str()))
        .collect()
}

pub(super) fn plan(a: &Path, b: &Path, options: &[&str]) -> String {
    let paths = ["plan".as_ref(), a.as_os_str(), b.as_os_str()];
    tool(paths.into_iter().chain(options.iter().map(|option| option.as_ref()))).success().stdout
}

/// `scripts/fixtures/wild/small_files.py` made it.
#[test]
fn every_kind_of_small_file_goes_along_and_what_stays_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let [all, plain] = ["all", "plain"].map(|name| fixture("wild/small_files").join(name));
    let child = dir.path().join("child");
    merge(&all, &plain, &child, &[]).success();
    let expected = [
        "1_Pooling/config.json",
        "LICENSE",
        "additional_chat_templates/rag.jinja",
        "chat_template.jinja",
        "config_sentence_transformers.json",
        "generation_config.json",
        "modules.json",
        "processor_config.json",
        "qwen.tiktoken",
        "sentence_bert_config.json",
        "source.spm",
        "spm.model",
        "target.spm",
        "tekken.json",
        "voices/names.json",
    ];
    assert_eq!(files(&child), expected);
    for name in expected {
        assert!(fs::read(child.join(name)).unwrap() == fs::read(all.join(name)).unwrap(), "{name}");
    }
    let told = plan(&all, &plain, &[]);
    let line = told.lines().find(|line| line.starts_with("left behind: ")).unwrap();
    assert_eq!(
        line,
        "left behind: other weights: optimizer.pt; settings of other weights: \
         model.safetensors.index.json, weights.json; code (--copy-code takes *.py): modeling_own.py; \
         folders: checkpoint-500, half, runs; records of training: trainer_state.json; \
         documentation: README.md, loss.png; hidden: .hidden"
    );
    let json: Value = serde_json::from_str(&plan(&all, &plain, &["--json"])).unwrap();
    assert_eq!(json["left_behind"], line.strip_prefix("left behind: ").unwrap());
    assert!(json["small_files"].as_array().unwrap().contains(&json!("1_Pooling/config.json")));
    let coded = dir.path().join("coded");
    merge(&all, &plain, &coded, &["--copy-code"]).success();
    assert!(coded.join("modeling_own.py").exists());
    // A child is a parent like any other.
    let grandchild = dir.path().join("grandchild");
    merge(&child, &plain, &grandchild, &[]).success();
    assert_eq!(files(&grandchild), expected);
}

#[test]
fn of_the_secondary_only_the_tokenizer_goes_along() {
    let dir = tempfile::tempdir().unwrap();
    let [all, plain] = ["all", "plain"].map(|name| fixture("wild/small_files").join(name));
    let child = dir.path().join("child");
    merge(&plain, &all, &child, &[]).success();
    let expected = [
        "additional_chat_templates/rag.jinja",
        "chat_template.jinja",
        "qwen.tiktoken",
        "source.spm",
        "spm.model",
        "target.spm",
        "tekken.json",
    ];
    assert_eq!(files(&child), expected);
    assert!(!plan(&plain, &all, &[]).contains("left behind"));
}

#[test]
fn files_of_two_tokenizers_are_never_mixed() {
    let dir = tempfile::tempdir().unwrap();
    let own: &[(&str, &[u8])] = &[
        ("spm.model", b"\x0a\x03\x0a\x01a"),
        ("tokenizer_old.json", b"{}"),
        ("ice_text.model", b"x"),
        ("additional_chat_templates/rag.jinja", b"a"),
        ("words/vocab.txt", b"a"),
        ("preprocessor_config.json", b"{\"own\": 1}"),
        ("processor_config.json", b"{}"),
    ];
    let other: &[(&str, &[u8])] = &[
        ("tokenizer.json", b"{}"),
        ("special_tokens_map.json", b"{}"),
        ("preprocessor_config.json", b"{}"),
        ("settings.json", b"{}"),
    ];
    let a = model(dir.path(), "a", 1, own);
    let b = model(dir.path(), "b", 2, other);
    // Equally long, and only the secondary has a special_tokens_map.json.
    let child = dir.path().join("child");
    merge(&a, &b, &child, &[]).success();
    let expected = [
        "preprocessor_config.json",
        "processor_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
    ];
    assert_eq!(files(&child), expected);
    assert_eq!(fs::read(child.join("preprocessor_config.json")).unwrap(), b"{\"own\": 1}");
    let told = plan(&a, &b, &[]);
    let words = "left behind: the tokenizer that was not taken: additional_chat_templates, \
                 ice_text.model, spm.model, 2 more";
    assert!(told.contains(words), "{told}");
    let primary = dir.path().join("primary");
    merge(&a, &b, &primary, &["--tokenizer", "primary"]).success();
    let names: Vec<&str> = own.iter().map(|file| file.0).collect();
    assert!(names.iter().all(|name| primary.join(name).exists()), "{:?}", files(&primary));
    assert!(!primary.join("tokenizer.json").exists());
}

#[test]
fn odd_entries_stay_behind_and_nothing_waits_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let plain = model(dir.path(), "plain", 1, &[]);
    let a = model(
        dir.path(),
        "a",
        2,
        &[
            ("settings.json", b"{}"),
            ("pointer.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"),
            ("two\nlines.json", b"{}"),
            ("journal.jsonl", b"{}"),
            ("mergekit_config.yml", b"a"),
            (".git/config", b"a"),
            ("deep/1/2/3/4/5/6/7/8/9/10.json", b"{}"),
            ("few/a.json", b"{}"),
            ("few/.hidden", b"{}"),
            ("script", b"#!/bin/sh"),
        ],
    );
    fs::write(a.join(OsString::from_vec(b"n\xffo".to_vec())), b"x").unwrap();
    fs::File::create(a.join("big.csv")).unwrap().set_len((16 << 20) + 1).unwrap();
    fs::File::create(a.join("large.csv")).unwrap().set_len(16 << 20).unwrap();
    fs::set_permissions(a.join("script"), fs::Permissions::from_mode(0o6755)).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    for pipe in ["pipe", "few/pipe"] {
        rustix::fs::mkfifoat(rustix::fs::CWD, a.join(pipe), mode).unwrap();
    }
    symlink("/dev/zero", a.join("zeros")).unwrap();
    symlink("nowhere", a.join("dangling.json")).unwrap();
    symlink("/usr", a.join("linked")).unwrap();
    symlink("..", a.join("few/loop")).unwrap();
    for number in 0..10_001 {
        write(&a, &format!("many/{number}.json"), b"");
    }
    let child = dir.path().join("child");
    merge(&a, &plain, &child, &[]).success();
    assert_eq!(files(&child), ["few/a.json", "large.csv", "script", "settings.json"]);
    assert_eq!(fs::metadata(child.join("script")).unwrap().permissions().mode() & 0o7111, 0);
    let told = plan(&a, &plain, &[]);
    for words in [
        "larger than 16 MiB: big.csv",
        "beyond 1000 files, 256 MiB or 8 folders in one another: deep, many",
        "git-lfs pointers: pointer.csv",
        "no plain or readable files: dangling.json, few/loop, few/pipe, 5 more",
        "hidden: .git",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    // A thousand files and one.
    let a = model(dir.path(), "crowd", 2, &[("generation_config.json", b"{}")]);
    for number in 0..1001 {
        write(&a, &format!("{number:04}.json"), b"{}");
    }
    let crowded = dir.path().join("crowded");
    merge(&a, &plain, &crowded, &[]).success();
    assert_eq!(files(&crowded).len(), 1001);
    assert!(crowded.join("generation_config.json").exists());
}

#[test]
fn a_file_that_was_not_downloaded_is_refused_where_the_child_needs_it() {
    let dir = tempfile::tempdir().unwrap();
    let plain = model(dir.path(), "plain", 1, &[]);
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    for name in ["source.spm", "preprocessor_config.json", "tekken.json"] {
        let a = model(dir.path(), name, 2, &[(name, pointer)]);
        let said = merge(&a, &plain, &dir.path().join("x"), &[]).refused(65);
        assert!(said.contains("a file beside the weights was not downloaded"), "{said}");
        assert!(said.contains(name) && said.contains("git lfs pull"), "{said}");
    }
}

/// Ranks 0 to 6, of which the last has no row of six.
#[test]
fn ids_of_further_tokenizer_files_are_held_to_the_childs_rows() {
    let dir = tempfile::tempdir().unwrap();
    let plain = model(dir.path(), "plain", 1, &[]);
    let ranks = |count: u8| -> Vec<u8> {
        (0..count).flat_map(|rank| format!("YQ== {rank}\n").into_bytes()).collect()
    };
    // Pieces of which most have no row: their ids are those of dict.txt (BARTpho).
    let pieces: Vec<u8> = (0..9).flat_map(|_| *b"\x0a\x03\x0a\x01a").collect();
    for (name, refused, files) in [
        ("qwen", true, vec![("qwen.tiktoken", ranks(7))]),
        ("qwen6", false, vec![("qwen.tiktoken", ranks(6))]),
        ("deberta", true, vec![("spm.model", pieces.clone())]),
        (
            "marian",
            false,
            vec![("source.spm", pieces.clone()), ("vocab.json", b"{\"a\": 5}".to_vec())],
        ),
        (
            "bartpho",
            false,
            vec![("sentencepiece.bpe.model", pieces.clone()), ("dict.txt", b"a 1".to_vec())],
        ),
    ] {
        let files: Vec<(&str, &[u8])> =
            files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
        let a = model(dir.path(), name, 2, &files);
        let child = merge(&a, &plain, &dir.path().join("child").join(name), &[]);
        if refused {
            let said = child.refused(65);
            assert!(said.contains("the tokenizer names rows that the child lacks"), "{said}");
        } else {
            child.success();
        }
    }
}

#[test]
fn a_child_counts_as_present_only_with_its_small_files_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let modules = br#"[{"path": "1_Pooling"}]"#;
    let own: &[(&str, &[u8])] = &[("modules.json", modules), ("1_Pooling/config.json", b"{}")];
    let a = model(dir.path(), "a", 1, own);
    model(dir.path(), "b", 2, &[]);
    let batch = |overwrite: bool| {
        let job =
            json!({ "primary": "a", "secondary": "b", "output": "child", "overwrite": overwrite });
        let manifest = json!({ "merges": [job] });
        fs::write(dir.path().join("merges.json"), manifest.to_string()).unwrap();
        run(command().current_dir(dir.path()).args(["batch", "merges.json", "--json"]))
    };
    let result = |overwrite| batch(overwrite).success().json()["jobs"][0]["result"].clone();
    assert_eq!(result(false), "merged");
    assert_eq!(result(false), "present");
    write(&a, "1_Pooling/config.json", b"{\"new\": 1}");
    let said = batch(false).refused(1);
    assert!(said.contains("its 1_Pooling/config.json differs"), "{said}");
    assert_eq!(result(true), "merged");
    let child = dir.path().join("child");
    assert_eq!(fs::read(child.join("1_Pooling/config.json")).unwrap(), b"{\"new\": 1}");
    fs::remove_file(child.join("1_Pooling/config.json")).unwrap();
    assert!(batch(false).refused(1).contains("its 1_Pooling/config.json differs"));
    assert_eq!(listing(dir.path()), ["a", "b", "child", "merges.json"]);
}

#[test]
fn what_cannot_be_read_is_found_before_the_merge() {
    let dir = tempfile::tempdir().unwrap();
    let plain = model(dir.path(), "plain", 1, &[]);
    let a = model(dir.path(), "a", 2, &[("z/a.json", b"{}"), ("b.csv", b""), ("code/x.py", b"")]);
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    for path in [dir.path(), &out] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let as_user = |words: &[&str]| {
        let mut command = command();
        command.args(words).args([&a, &plain]).arg("-o").arg(out.join("child"));
        run_as_plain_user(&mut command)
    };
    let unread = |name: &str| {
        fs::set_permissions(a.join(name), fs::Permissions::from_mode(0o000)).unwrap();
    };
    unread("z");
    unread("b.csv");
    let Some(run) = as_user(&["plan"]) else { return };
    let told = run.success().stdout;
    let words = "left behind: code (--copy-code takes *.py): code/x.py; \
                 no plain or readable files: b.csv, z";
    assert!(told.contains(words), "{told}");
    write(&a, "vocab.txt", b"a");
    unread("vocab.txt");
    let said = as_user(&["merge"]).unwrap().refused(66);
    assert!(said.contains("vocab.txt"), "{said}");
    assert!(listing(&out).is_empty());
}

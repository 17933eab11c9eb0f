//! Index variants, shards that disagree, file names of other programs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::build::{Dict, sharded};
use crate::support::{
    child_bytes, fixture, listing, merge, parent_bytes, snapshot, tool, weight_files,
};

pub(super) fn wild(case: &str) -> PathBuf {
    fixture("wild/files").join(case)
}

/// The child of two cases in three shards: its weights by name, and what the merge said.
pub(super) fn child(a: &Path, b: &Path) -> (BTreeMap<PathBuf, Vec<u8>>, String) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("child");
    let run = merge(a, b, &out, &["--max-shard-size", "200", "-t", "0.3"]).success();
    let mut files = snapshot(&out);
    files.retain(|name, _| name.to_str().unwrap().contains(".bin"));
    (files, run.stderr)
}

/// What merge, as primary and as secondary, and verify say of a case that no merge takes.
fn refusals(path: &Path, partner: &Path, code: i32) -> [String; 3] {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("child");
    let merged = |a: &Path, b: &Path| merge(a, b, &out, &[]).refused(code);
    let all = [merged(path, partner), merged(partner, path), verified(path, code)];
    assert!(!out.exists());
    all
}

/// What verify says, which must end with `code`.
pub(super) fn verified(path: &Path, code: i32) -> String {
    let run = tool(["verify".as_ref(), path.as_os_str()]);
    assert_eq!(run.code, Some(code), "{}", run.stderr);
    run.stdout + &run.stderr
}

/// Paths below `dir` of what `find` lists, and why what can't be merged can't.
fn found(dir: &Path) -> BTreeMap<String, String> {
    let run = tool(["find".as_ref(), dir.as_os_str(), "--json".as_ref()]).success();
    let models = run.json()["models"].as_array().unwrap().clone();
    let entry = |model: &Value| {
        let path = Path::new(model["path"].as_str().unwrap()).strip_prefix(dir).unwrap();
        let error = model["error"].as_str().unwrap_or_default();
        (path.to_str().unwrap().to_owned(), error.to_owned())
    };
    models.iter().map(entry).collect()
}

#[test]
fn variants_are_read_by_every_spelling_and_the_child_is_plain() {
    let (plain, _) = child(&wild("variants/a"), &wild("variants/b"));
    assert_eq!(plain.len(), 4);
    for (a, b) in [("a-fp16", "b-fp16-shards"), ("a-fp16-shards", "b"), ("a-fp16-shards", "b-fp16")]
    {
        let (files, said) = child(&wild("variants").join(a), &wild("variants").join(b));
        assert!(files == plain, "{a} and {b}");
        assert!(!said.contains("warning"), "{said}");
    }
    let (old, _) = child(&wild("variants/b"), &wild("variants/a-old-diffusers"));
    let (new, _) = child(&wild("variants/b"), &wild("variants/a"));
    assert!(old == new);
}

#[test]
fn a_plain_name_goes_before_a_variant_and_the_others_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let both = dir.path().join("both");
    fs::create_dir(&both).unwrap();
    for (case, name) in [
        ("a", "pytorch_model.bin"),
        ("b-fp16", "pytorch_model.fp16.bin"),
        ("b-fp16-shards", "pytorch_model.bin.index.fp16.json"),
    ] {
        fs::copy(wild("variants").join(case).join(name), both.join(name)).unwrap();
    }
    let (files, said) = child(&both, &wild("variants/b"));
    assert!(files == child(&wild("variants/a"), &wild("variants/b")).0);
    let words = "pytorch_model.bin used; not looked at: pytorch_model.bin.index.fp16.json, \
                 pytorch_model.fp16.bin";
    assert!(said.contains(words), "{said}");
    let words = "not looked at, though other programs may take it: \
                 `pytorch_model.bin.index.fp16.json`, `pytorch_model.fp16.bin`";
    assert!(verified(&both, 0).contains(words));
}

#[test]
fn two_variants_are_refused_by_name_and_each_can_be_named() {
    let dir = tempfile::tempdir().unwrap();
    let both = dir.path().join("both");
    fs::create_dir(&both).unwrap();
    for (case, names) in [
        ("a-fp16", &["pytorch_model.fp16.bin"][..]),
        (
            "b-fp16-shards",
            &[
                "config.json",
                "pytorch_model.fp16-00001-of-00002.bin",
                "pytorch_model.fp16-00002-of-00002.bin",
            ],
        ),
    ] {
        for name in names {
            fs::copy(wild("variants").join(case).join(name), both.join(name)).unwrap();
        }
    }
    let index = both.join("pytorch_model.bin.index.ema.json");
    fs::copy(wild("variants/b-fp16-shards/pytorch_model.bin.index.fp16.json"), &index).unwrap();
    for said in refusals(&both, &wild("variants/a"), 66) {
        let words = "found 2 checkpoints: pytorch_model.bin.index.ema.json, pytorch_model.fp16.bin";
        assert!(said.contains(words), "{said}");
        let hint = format!("e.g. {}", index.display());
        assert!(said.contains(&hint), "{said}");
    }
    // What the hint names can be opened, with the config beside it.
    let (files, said) = child(&index, &wild("variants/a"));
    assert!(files == child(&wild("variants/b"), &wild("variants/a")).0);
    assert!(!said.contains("config.json"), "{said}");
    let models = found(&both);
    let names = ["pytorch_model.bin.index.ema.json", "pytorch_model.fp16.bin"];
    assert_eq!(models.keys().collect::<Vec<_>>(), names);
    assert!(models.values().all(String::is_empty), "{models:?}");
    verified(&index, 0);
}

#[test]
fn a_buffer_that_the_index_lacks_is_taken_in_its_place() {
    let (with_entry, _) = child(&wild("shards/b-buffer"), &wild("shards/a-buffer"));
    let (files, said) = child(&wild("shards/a-buffer"), &wild("shards/b-buffer"));
    // The names of both children, and so their places in the shards, are the same.
    assert_eq!(
        files[Path::new("pytorch_model.bin.index.json")],
        with_entry[Path::new("pytorch_model.bin.index.json")]
    );
    let words =
        "1 buffer that pytorch_model.bin.index.json lacks is taken: embeddings.position_ids";
    assert!(said.contains(words), "{said}");
    let said = verified(&wild("shards/a-buffer"), 0);
    let words = "note: buffers that the index lacks: pytorch_model-00001-of-00002.bin: \
                 `embeddings.position_ids`";
    assert!(said.contains(words), "{said}");
}

#[test]
fn any_other_tensor_that_the_index_lacks_is_refused() {
    for said in refusals(&wild("shards/a-stray"), &wild("shards/b"), 65) {
        assert!(said.contains("`extra.weight`"), "{said}");
        assert!(said.contains("hint: index and shards are from different saves"), "{said}");
    }
}

#[test]
fn equal_copies_in_two_shards_are_one_tensor() {
    let plain = child(&wild("shards/a"), &wild("shards/b")).0;
    for case in ["shards/a-twice", "shards/a-twice-sliced"] {
        let (files, said) = child(&wild(case), &wild("shards/b"));
        // The index has the tensor in the second shard, where it comes first: the order stays.
        assert!(files == plain, "{case}");
        let words = "1 tensor in two shards with equal bytes, used once: layers.0.weight";
        assert!(said.contains(words), "{said}");
        let said = verified(&wild(case), 0);
        let words = "note: in an earlier shard too, with equal bytes: \
                     pytorch_model-00002-of-00002.bin: `layers.0.weight`";
        assert!(said.contains(words), "{said}");
        assert!(!said.contains("another shard than the index says"), "{said}");
    }
}

#[test]
fn copies_that_differ_are_refused_with_both_files() {
    let refusals = refusals(&wild("shards/a-differing"), &wild("shards/b"), 65);
    for said in &refusals {
        assert!(said.contains("pytorch_model-00002-of-00002.bin: `layers.0.weight`"), "{said}");
    }
    let words = "expected the same bytes in both, found others in pytorch_model-00001-of-00002.bin";
    assert!(refusals[0].contains(words), "{}", refusals[0]);
}

#[test]
fn copies_without_checksums_are_compared_byte_by_byte() {
    let dir = tempfile::tempdir().unwrap();
    let shard = |name: &str, seed: u64| Dict::new().noise(name, &[4, 4], seed);
    let twice = |name: &str, seed: u64| {
        let second = shard("v", 2).noise("w", &[4, 4], seed);
        let model = sharded(dir.path(), name, &[shard("w", 1).noise("u", &[2], 7), second]);
        for file in weight_files(&model).iter().filter(|file| file.ends_with(".bin")) {
            forget_checksums(&model.join(file));
        }
        model
    };
    let partner =
        sharded(dir.path(), "partner", &[shard("w", 5).noise("u", &[2], 8), shard("v", 6)]);
    let out = dir.path().join("child");
    merge(&twice("equal", 1), &partner, &out, &["-t", "0"]).success();
    let own = parent_bytes(&sharded(
        dir.path(),
        "plain",
        &[shard("w", 1).noise("u", &[2], 7), shard("v", 2)],
    ));
    assert_eq!(child_bytes(&out), own);
    let said = merge(&twice("other", 3), &partner, &dir.path().join("no"), &[]).refused(65);
    assert!(said.contains("a tensor is in two shards"), "{said}");
}

/// Sets the CRC fields of all data records of an archive to 0, torch's word for "not computed".
fn forget_checksums(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let records = llm_slerp_merge::format::archive_records(&bytes).unwrap();
    let data = records.iter().filter(|record| record.name.contains("/data/"));
    let crcs: Vec<[u8; 4]> = data.map(|record| record.crc32.unwrap().to_le_bytes()).collect();
    for place in 0..bytes.len() - 3 {
        let field: [u8; 4] = bytes[place..place + 4].try_into().unwrap();
        if crcs.contains(&field) {
            bytes[place..place + 4].fill(0);
        }
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_child_of_diffusers_is_what_diffusers_writes() {
    let dir = tempfile::tempdir().unwrap();
    let weights = |dir: &Path| {
        let mut files = snapshot(dir);
        files.retain(|name, _| name.to_str().unwrap().contains(".bin"));
        files
    };
    for (pair, shards, limit) in [("diffusers", "b", "330"), ("unet", "b", "3000")] {
        let case = |name: &str| wild(pair).join(name);
        let [whole, split] = ["a", "a-shards"].map(|name| weights(&case(name)));
        for primary in ["a", "a-shards", "a-fp16"] {
            if !case(primary).exists() {
                continue;
            }
            let out = dir.path().join(format!("{pair}-{primary}"));
            merge(&case(primary), &case(shards), &out, &["-t", "0"]).success();
            assert!(weights(&out) == whole, "{pair}: {primary} in one file");
            let out = dir.path().join(format!("{pair}-{primary}-split"));
            let options = ["-t", "0", "--max-shard-size", limit];
            merge(&case(primary), &case(shards), &out, &options).success();
            assert!(weights(&out) == split, "{pair}: {primary} in shards");
            assert!(out.join("config.json").exists());
            verified(&out, 0);
        }
    }
}

#[test]
fn a_child_of_diffusers_is_replaced_and_found_again_under_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("child");
    let [a, b] = ["a", "b"].map(|name| wild("diffusers").join(name));
    merge(&a, &b, &out, &["--max-shard-size", "330"]).success();
    merge(&a, &b, &out, &["--overwrite"]).success();
    assert_eq!(weight_files(&out), ["diffusion_pytorch_model.bin"]);
    let manifest = dir.path().join("batch.json");
    let jobs = serde_json::json!({ "merges": [{ "primary": a, "secondary": b, "output": out }] });
    fs::write(&manifest, jobs.to_string()).unwrap();
    let run = tool(["batch".as_ref(), manifest.as_os_str(), "--json".as_ref()]).success();
    assert!(run.stdout.contains("\"present\""), "{}", run.stdout);
    // A child of transformers takes nothing from a diffusers secondary.
    let other = dir.path().join("other");
    let file = b.join("diffusion_pytorch_model.bin");
    merge(&file, &a, &other, &[]).success();
    assert_eq!(weight_files(&other), ["pytorch_model.bin"]);
}

#[test]
fn a_pipeline_of_diffusers_names_its_models() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = dir.path().join("pipeline");
    fs::create_dir(&pipeline).unwrap();
    fs::write(pipeline.join("model_index.json"), "{}").unwrap();
    symlink(wild("diffusers/a"), pipeline.join("unet")).unwrap();
    for said in refusals(&pipeline, &wild("diffusers/b"), 66) {
        assert!(said.contains("found a diffusers pipeline"), "{said}");
        assert!(said.contains("hint: merge its models one by one; they are in unet"), "{said}");
    }
    child(&pipeline.join("unet"), &wild("diffusers/b"));
}

#[test]
fn find_lists_what_merge_takes_and_says_what_it_refuses() {
    let models = found(&wild(""));
    let refused: Vec<(&str, &str)> = models
        .iter()
        .filter(|(_, error)| !error.is_empty())
        .map(|(path, error)| (path.as_str(), error.split(':').next().unwrap()))
        .collect();
    let (one, some) =
        ("this is a part of a model, not a model", "these are parts of a model, not a model");
    assert_eq!(
        refused,
        [
            ("parts/deepspeed", some),
            ("parts/llama", some),
            ("parts/megatron/mp_rank_00/model_optim_rng.pt", some),
            ("parts/megatron/mp_rank_01/model_optim_rng.pt", some),
            ("parts/metaseq", some),
            ("parts/neox", some),
            ("parts/ranks", one),
            ("parts/torchtune", some),
            ("parts/verl", some),
            ("shards/a-differing", "a tensor is in two shards"),
            ("shards/a-stray", "a shard holds a tensor that the index does not map"),
        ]
    );
    let taken = models.iter().filter(|(_, error)| error.is_empty()).map(|(path, _)| path.as_str());
    let mut expected: Vec<String> = Vec::new();
    for (group, cases) in [
        ("diffusers", &["a", "a-shards", "b", "b-shards"][..]),
        (
            "parts",
            &[
                "llama-whole/consolidated.00.pth",
                "torchtune-epochs/hf_model_0001_0.pt",
                "torchtune-epochs/hf_model_0001_1.pt",
            ],
        ),
        ("shards", &["a", "a-buffer", "a-twice", "a-twice-sliced", "b", "b-buffer"]),
        ("unet", &["a", "a-fp16", "a-shards", "b"]),
        ("variants", &listing(&wild("variants")).iter().map(String::as_str).collect::<Vec<_>>()),
    ] {
        expected.extend(cases.iter().map(|case| format!("{group}/{case}")));
    }
    assert_eq!(taken.collect::<Vec<_>>(), expected);
}

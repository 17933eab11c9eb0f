//! Parents that are refused: with which exit code, in which words, and that nothing is left.

use std::fs;
use std::path::{Path, PathBuf};

use llm_slerp_merge::tensor::DType;

use crate::build::{Dict, hollow, sharded};
use crate::support::{Loaded, fixture, merge, snapshot, tool, torch_model};
use crate::ulp::rounded;

/// A directory with two parents in it, and what merging them says.
struct Pair {
    dir: tempfile::TempDir,
    a: PathBuf,
    b: PathBuf,
}

impl Pair {
    fn new(a: &Dict, b: &Dict) -> Pair {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (a.model(dir.path(), "a", "{}"), b.model(dir.path(), "b", "{}"));
        Pair { dir, a, b }
    }

    /// stderr of a merge that must end with `code`, change no parent and leave nothing.
    #[track_caller]
    fn refused(&self, code: i32, options: &[&str]) -> String {
        let before = snapshot(self.dir.path());
        let said = merge(&self.a, &self.b, &self.dir.path().join("child"), options).refused(code);
        assert!(snapshot(self.dir.path()) == before, "something was left or changed");
        said
    }
}

/// All of `words` must be in `said`.
#[track_caller]
fn assert_says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "no `{word}` in: {said}");
    }
}

fn layers(depth: usize, width: u64) -> Dict {
    let start = Dict::new().noise("model.embed_tokens.weight", &[4, width], 1);
    (0..depth).fold(start, |dict, layer| {
        dict.noise(&format!("model.layers.{layer}.mlp.weight"), &[width, 2], 2)
    })
}

#[test]
fn parents_of_another_width_are_refused_with_every_tensor() {
    let said = Pair::new(&layers(2, 8), &layers(2, 9)).refused(65, &[]);
    assert_says(
        &said,
        &[
            "error: the parents are of different sizes",
            "3 tensors that differ",
            "model.embed_tokens.weight: [4, 8] and [4, 9]",
            "model.layers.0.mlp.weight: [8, 2] and [9, 2]",
            "model.layers.1.mlp.weight: [8, 2] and [9, 2]",
            "hint: ",
        ],
    );
}

#[test]
fn parents_of_another_rank_or_kind_are_refused() {
    let a = Dict::new().noise("w", &[4], 1).with("n", DType::Int64, &[1], &[1.0]);
    let b = Dict::new().noise("w", &[4, 1], 1).noise("n", &[1], 1);
    let said = Pair::new(&a, &b).refused(65, &[]);
    assert_says(&said, &["w: [4] and [4, 1]", "n: int64 and float32", "2 tensors that differ"]);
}

#[test]
fn parents_of_another_depth_are_refused_by_name_of_the_place() {
    let pair = Pair::new(&layers(2, 8), &layers(3, 8));
    for missing in ["primary", "union", "error"] {
        let said = pair.refused(65, &["--missing", missing]);
        assert_says(&said, &["their depths differ", "model.layers.N: 2 and 3", "a", "b"]);
    }
}

#[test]
fn parents_without_a_tensor_in_common_are_refused() {
    let pair = Pair::new(&Dict::new().noise("v", &[2], 1), &Dict::new().noise("w", &[2], 1));
    let said = pair.refused(65, &["--missing", "error"]);
    assert_says(&said, &["v: only in the primary", "w: only in the secondary"]);
    let said = pair.refused(65, &[]);
    assert_says(&said, &["error: the parents have no tensor in common", "`v`", "`w`", "hint: "]);
}

#[test]
fn an_adapter_is_refused_and_what_to_do_with_it_is_told() {
    let adapter = |seed| {
        let start = "base_model.model.model.layers.0.self_attn.q_proj.lora";
        let down = Dict::new().noise(&format!("{start}_A.weight"), &[2, 4], seed);
        down.noise(&format!("{start}_B.weight"), &[4, 2], seed)
    };
    let said = Pair::new(&adapter(1), &adapter(2)).refused(65, &[]);
    assert_says(
        &said,
        &["error: this is a LoRA adapter, not a model", "in 2 of 2 tensors", "hint: "],
    );
}

#[test]
fn quantised_weights_are_refused_with_their_method() {
    let dir = tempfile::tempdir().unwrap();
    let packed = Dict::new().with("model.layers.0.w.qweight", DType::UInt8, &[2, 2], &[1.0; 4]);
    let bnb = Dict::new().with("model.layers.0.w", DType::UInt8, &[2, 2], &[1.0; 4]);
    let plain = Dict::new().noise("model.layers.0.w", &[2, 2], 1);
    let masked = plain.clone().with("mask", DType::UInt8, &[2], &[1.0; 2]);
    let config = r#"{"quantization_config": {"quant_method": "bitsandbytes"}}"#;
    let out = dir.path().join("child");
    let packed = packed.bare(dir.path(), "packed");
    let said = merge(&packed, &packed, &out, &[]).refused(65);
    assert_says(&said, &["error: quantised weights can't be merged", "`model.layers.0.w.qweight`"]);
    let bnb = bnb.model(dir.path(), "bnb", config);
    let plain = plain.model(dir.path(), "plain", config);
    let said = merge(&plain, &bnb, &out, &[]).refused(65);
    assert_says(&said, &["`model.layers.0.w`", "uint8, quantised (bitsandbytes)", "hint: "]);
    // A config that speaks of quantisation over weights that are not: both are merged.
    let masked = masked.model(dir.path(), "masked", config);
    merge(&plain, &masked, &out, &["--missing", "primary"]).success();
}

#[test]
fn a_missing_shard_is_named_before_anything_is_read() {
    let one = |name: &str| Dict::new().noise(name, &[2], 1);
    let pair = Pair::new(&one("v"), &one("v"));
    let model = sharded(pair.dir.path(), "c", &[one("v"), one("w")]);
    fs::remove_file(model.join("pytorch_model-00002-of-00002.bin")).unwrap();
    let said = Pair { b: model, ..pair }.refused(66, &[]);
    assert_says(
        &said,
        &[
            "error: a shard is missing",
            "c/pytorch_model.bin.index.json",
            "expected 2 shards",
            "no `pytorch_model-00002-of-00002.bin`",
            "hint: ",
        ],
    );
}

#[test]
fn an_index_that_names_what_no_shard_has_is_refused() {
    let one = |name: &str| Dict::new().noise(name, &[2], 1);
    let pair = Pair::new(&one("v"), &one("v"));
    let model = sharded(pair.dir.path(), "c", &[one("v"), one("w")]);
    one("v").file(&model.join("pytorch_model-00001-of-00002.bin"));
    one("x").file(&model.join("pytorch_model-00002-of-00002.bin"));
    let index = model.join("pytorch_model.bin.index.json");
    let text = fs::read_to_string(&index).unwrap();
    fs::write(&index, text.replace("\"w\"", "\"x\"").replace("\"v\"", "\"u\"")).unwrap();
    let pair = Pair { b: model, ..pair };
    let said = pair.refused(65, &[]);
    assert_says(&said, &["does not map", "pytorch_model-00001-of-00002.bin", "`v`"]);
    let both = text.replace("\"w\"", "\"x\"").replace(
        "\"weight_map\": {",
        "\"weight_map\": {\n    \"lost\": \"pytorch_model-00001-of-00002.bin\",",
    );
    fs::write(&index, both).unwrap();
    let said = pair.refused(65, &[]);
    assert_says(&said, &["a shard lacks a tensor", "pytorch_model-00001-of-00002.bin", "`lost`"]);
}

#[test]
fn a_truncated_file_is_refused_at_every_length() {
    let dict = Dict::new().noise("w", &[4, 4], 1);
    let pair = Pair::new(&dict, &dict);
    let file = pair.b.join("pytorch_model.bin");
    let whole = fs::read(&file).unwrap();
    for length in [0, 1, 3, 4, 30, 64, whole.len() / 2, whole.len() - 22, whole.len() - 1] {
        fs::write(&file, &whole[..length]).unwrap();
        let said = pair.refused(65, &[]);
        assert_says(&said, &["b/pytorch_model.bin"]);
    }
}

#[test]
fn what_is_no_checkpoint_is_named() {
    let dict = Dict::new().noise("w", &[4, 4], 1);
    let pair = Pair::new(&dict, &dict);
    let file = pair.b.join("pytorch_model.bin");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 13\n";
    for (bytes, words) in [
        (pointer, ["b/pytorch_model.bin", "git-lfs", "git lfs pull"]),
        ("<!DOCTYPE html><html></html>", ["b/pytorch_model.bin", "HTML", "hint: "]),
        ("{\"a\": 1}", ["b/pytorch_model.bin", "expected", "found"]),
    ] {
        fs::write(&file, bytes).unwrap();
        let said = pair.refused(65, &[]);
        let lower = said.to_lowercase();
        for word in words {
            assert!(lower.contains(&word.to_lowercase()), "no `{word}` in: {said}");
        }
    }
}

#[test]
fn a_flipped_bit_in_a_tensor_is_refused_by_its_checksum() {
    let dict = Dict::new().noise("v", &[4], 1).noise("w", &[4, 4], 2);
    let pair = Pair::new(&dict, &dict);
    let file = pair.b.join("pytorch_model.bin");
    let mut bytes = fs::read(&file).unwrap();
    let needle = Loaded::of(&tch::Tensor::from_slice(
        &crate::build::noise(16, 2).iter().map(|v| *v as f32).collect::<Vec<_>>(),
    ))
    .bytes;
    let place = bytes.windows(64).position(|window| window == needle).unwrap();
    bytes[place + 9] ^= 1;
    fs::write(&file, bytes).unwrap();
    for memory in ["0", "1GiB"] {
        let said = pair.refused(65, &["--memory", memory]);
        assert_says(
            &said,
            &["is damaged", "b/pytorch_model.bin", "`w`", "expected CRC-32", "found"],
        );
    }
}

#[test]
fn nan_in_a_parent_stops_the_merge_with_count_and_place() {
    let mut values = crate::build::noise(70_000, 3);
    let clean = Dict::new().f32("v", &[2], &[1.0, 2.0]).f32("w", &[70_000], &values);
    values[66_000] = f64::NAN;
    values[69_999] = f64::INFINITY;
    let broken = Dict::new().f32("v", &[2], &[1.0, 2.0]).f32("w", &[70_000], &values);
    for (pair, file) in [
        (Pair::new(&clean, &broken), "b/pytorch_model.bin"),
        (Pair::new(&broken, &clean), "a/pytorch_model.bin"),
    ] {
        for options in [
            &["--memory", "0"][..],
            &["--memory", "1GiB"],
            &["--method", "linear"],
            &["-t", "0"],
            &["-t", "1"],
        ] {
            let said = pair.refused(65, options);
            assert_says(&said, &[file, "`w`", "2 NaN or Inf, the first at element 66000"]);
            assert_says(&said, &["expected finite values", "hint: "]);
        }
        let out = pair.dir.path().join("child");
        let run = merge(&pair.a, &pair.b, &out, &["--allow-nonfinite"]).success();
        assert_says(&run.stderr, &["warning: `w`", "NaN or Inf"]);
        assert_eq!(torch_model(&out)["v"], torch_model(&pair.a)["v"]);
    }
}

#[test]
fn an_overflow_is_told_with_its_place_in_the_tensor() {
    // Behind the first piece, which has 65,536 elements.
    let mut values = vec![1.0; 70_000];
    values[66_000..66_003].fill(70_000.0);
    let big = Dict::new().f32("w", &[70_000], &values);
    let pair = Pair::new(&big, &big);
    for options in [&["--dtype", "float16"][..], &["--dtype", "float16", "--method", "linear"]] {
        let said = pair.refused(65, options);
        assert_says(&said, &["3 beyond its largest in one piece, the first at element 66000"]);
    }
}

#[test]
fn a_child_beyond_float16_is_refused_and_bfloat16_holds_it() {
    let big = |values: &[f64]| Dict::new().f32("w", &[4], values);
    let pair = Pair::new(&big(&[70_000.0, 1.0, 0.0, 0.0]), &big(&[70_000.0, 0.0, 1.0, 0.0]));
    let said = pair.refused(65, &["--dtype", "float16"]);
    assert_says(&said, &["the child overflows its dtype", "`w`", "float16", "hint: "]);
    assert_says(&said, &["1 beyond its largest in one piece, the first at element 0"]);
    let out = pair.dir.path().join("wide");
    merge(&pair.a, &pair.b, &out, &["--dtype", "bfloat16"]).success();
    let expected = rounded(&[70_000.0, 0.5, 0.5, 0.0], &[4], tch::Kind::BFloat16);
    assert_eq!(torch_model(&out)["w"], expected);
    let out = pair.dir.path().join("allowed");
    let options = ["--dtype", "float16", "--allow-nonfinite"];
    let run = merge(&pair.a, &pair.b, &out, &options).success();
    assert_says(&run.stderr, &["`w`: 1 NaN or Inf in the child"]);
}

#[test]
fn a_parent_that_is_not_there_is_told() {
    let dict = Dict::new().noise("w", &[2], 1);
    let pair = Pair::new(&dict, &dict);
    let absent = pair.dir.path().join("absent");
    let said = Pair { b: absent, ..pair }.refused(66, &[]);
    assert_says(&said, &["error: cannot open model", "absent"]);
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    let empty = dir.path().join("empty");
    let said = merge(&empty, &empty, &dir.path().join("child"), &[]).refused(66);
    assert_says(&said, &["no checkpoint in this directory", "empty", "hint: "]);
    fs::write(empty.join("model.safetensors"), b"").unwrap();
    let said = merge(&empty, &empty, &dir.path().join("child"), &[]).refused(65);
    assert_says(&said, &["model.safetensors: expected a checkpoint, found 0 bytes", "hint: "]);
}

#[test]
fn wrong_command_lines_end_with_two_before_anything_is_opened() {
    let single = fixture("reader/single.bin");
    let path = single.to_str().unwrap();
    for (arguments, word) in [
        (&["merge", "nowhere", "nowhere", "-o", "x", "-t", "1.5"][..], "0..=1"),
        (&["merge", "nowhere", "nowhere", "-o", "x", "-t", "nan"], "0..=1"),
        (&["merge", "nowhere", "nowhere", "-o", "x", "-t", ""], "0..=1"),
        (&["merge", "nowhere", "nowhere", "-o", "x", "--extend", "pad"], "gradient"),
        (&["merge", "nowhere", "nowhere", "-o", "x", "--max-shard-size", "5Q"], "5GB"),
        (&["merge", "nowhere", "nowhere", "-o", "x", "--memory=-1"], "negative"),
        (&["merge", "nowhere", "nowhere", "-o", "x", "--max-shard-size=-1"], "negative"),
        (&["merge", "nowhere", "nowhere", "-o", "x", "--threads", "0"], "1..=1024"),
        (&["merge", "nowhere", "nowhere", "-o", "x", "--device", "tpu"], "cpu"),
        (&["merge", path, path], "-o OUT"),
        (&["merge", path, path, "-o", "x", "-t", "0,1"], "{t}"),
        (&["merge", path, path, "-o", "x-{t}", "-t", "0.5,0.5"], "two children have one output"),
        (&["merge", path], "SECONDARY"),
        (&["blend", path, path], "blend"),
        (&[], "Usage"),
    ] {
        let said = tool(arguments).refused(2);
        assert!(said.contains(word), "{arguments:?}: {said}");
        assert!(!Path::new("x").exists());
    }
}

#[test]
fn with_json_an_error_is_an_object_on_stdout() {
    let dir = tempfile::tempdir().unwrap();
    let run =
        merge(&dir.path().join("no"), &dir.path().join("no"), &dir.path().join("x"), &["--json"]);
    assert_eq!(run.code, Some(66));
    let error = &run.json()["error"];
    assert_eq!(error["exit_code"], 66);
    assert!(error["file"].as_str().unwrap().ends_with("/no"));
}

#[test]
fn names_with_escapes_do_not_reach_the_terminal() {
    let a = Dict::new().noise("w\u{1b}[31m\n", &[2], 1);
    let b = Dict::new().noise("w\u{1b}[31m\n", &[3], 1);
    let said = Pair::new(&a, &b).refused(65, &[]);
    assert_says(&said, &["w\\u{1b}[31m\\n: [2] and [3]"]);
    assert!(!said.contains('\u{1b}'));
}

#[test]
fn a_child_larger_than_the_disk_is_refused_at_once_with_both_figures() {
    let dir = tempfile::tempdir().unwrap();
    let stat = rustix::fs::statvfs(dir.path()).unwrap();
    let free = stat.f_bavail * stat.f_frsize;
    let file = dir.path().join("big.bin");
    hollow(&file, free / 2 + (1 << 30));
    let said = merge(&file, &file, &dir.path().join("child"), &[]).refused(73);
    assert_says(
        &said,
        &["not enough room for the child", "expected ", "found ", "bytes", "hint: "],
    );
    assert!(!dir.path().join("child").exists() && !dir.path().join(".child.partial").exists());
}

//! What holds for every merge: the ends, the same parent twice, threads and memory, several t.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use llm_slerp_merge::tensor::DType;
use tch::{Kind, Tensor};

use crate::build::{Dict, noise};
use crate::support::{
    Loaded, child_bytes, fixture, float32_parent, merge, parent_bytes, snapshot, torch_model,
};
use crate::ulp::{FLOAT32_UNITS, assert_close, distance, distance_by_parents, rounded};

const PAIRS: [&str; 3] = ["llama", "gpt2", "neox"];

fn parents(pair: &str) -> [PathBuf; 2] {
    ["primary", "secondary"].map(|side| fixture(pair).join(side))
}

/// The child's bytes must begin with the parent's: a shorter vocabulary gets rows behind its own.
#[track_caller]
fn assert_begins_with(child: &BTreeMap<String, Vec<u8>>, parent: &BTreeMap<String, Vec<u8>>) {
    let mut compared = 0;
    for (name, bytes) in child {
        if let Some(theirs) = parent.get(name) {
            assert!(bytes.starts_with(theirs), "{name}");
            compared += 1;
        }
    }
    assert!(compared > 10);
}

#[test]
fn at_zero_and_one_the_child_has_the_parents_bytes() {
    let dir = tempfile::tempdir().unwrap();
    for pair in PAIRS {
        let [a, b] = parents(pair);
        for (t, parent) in [("0", &a), ("1", &b)] {
            let out = dir.path().join(format!("{pair}{t}"));
            merge(&a, &b, &out, &["-t", t]).success();
            assert_begins_with(&child_bytes(&out), &parent_bytes(parent));
        }
    }
}

#[test]
fn a_parent_merged_with_itself_is_itself() {
    let dir = tempfile::tempdir().unwrap();
    for pair in PAIRS {
        for parent in parents(pair) {
            let out = dir.path().join("child");
            merge(&parent, &parent, &out, &["-t", "0.37", "--overwrite"]).success();
            assert_eq!(child_bytes(&out), parent_bytes(&parent), "{}", parent.display());
        }
    }
}

#[test]
fn swapping_the_parents_and_t_gives_the_same_child_up_to_one_unit() {
    let dir = tempfile::tempdir().unwrap();
    let swapped = |pair: &str| {
        let [a, b] = parents(pair);
        let outs = ["there", "back"].map(|way| dir.path().join(format!("{pair}-{way}")));
        merge(&a, &b, &outs[0], &["-t", "0.3"]).success();
        merge(&b, &a, &outs[1], &["-t", "0.7"]).success();
        outs.map(|out| torch_model(&out))
    };
    let [there, back] = swapped("neox");
    for (name, tensor) in &there {
        let (furthest, _) = distance(tensor, &back[name]);
        assert!(furthest <= 1, "{name} is {furthest} units away");
    }
    let [there, back] = swapped("gpt2");
    let [a, b] = parents("gpt2").map(|path| float32_parent(&path));
    for (name, tensor) in &there {
        let apart = distance_by_parents(tensor, &back[name], [&a[name], &b[name]]);
        assert!(apart <= FLOAT32_UNITS, "{name} is {apart} units away");
    }
}

/// Two models with a tensor of two spans (4,194,304 elements each) and some of odd sizes.
fn wide_pair(dir: &Path) -> [PathBuf; 2] {
    let parent = |name: &str, seed: u64| {
        let long = noise(4_194_304 + 70_001, seed);
        Dict::new()
            .with("long", DType::Float16, &[4_264_305], &long)
            .noise("scalar", &[], seed + 1)
            .noise("empty", &[0, 3], seed)
            .noise("one_piece", &[65_536], seed + 2)
            .noise("piece_and_one", &[65_537], seed + 3)
            .with("counts", DType::Int64, &[3], &[1.0, 2.0, 3.0])
            .bare(dir, name)
    };
    [parent("a", 10), parent("b", 20)]
}

#[test]
fn threads_and_memory_do_not_change_a_byte_of_the_child() {
    let dir = tempfile::tempdir().unwrap();
    let wide = wide_pair(dir.path());
    for (pair, [a, b]) in [("wide", wide), ("llama", parents("llama"))] {
        let mut first = None;
        for options in [
            ["--threads", "1", "--memory", "1GiB"],
            ["--threads", "2", "--memory", "0"],
            ["--threads", "7", "--memory", "1GiB"],
            // Some pieces are kept, and some read again.
            ["--threads", "3", "--memory", "3MiB"],
            ["--threads", "7", "--memory", "0"],
        ] {
            let out = dir.path().join(pair);
            merge(&a, &b, &out, &[&options[..], &["--overwrite"]].concat()).success();
            let files = snapshot(&out);
            let expected = first.get_or_insert_with(|| files.clone());
            assert!(files == *expected, "{pair}: {options:?} give another child");
        }
    }
}

#[test]
fn a_tensor_of_several_spans_is_merged_by_the_formula() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = wide_pair(dir.path());
    let out = dir.path().join("child");
    merge(&a, &b, &out, &["-t", "0.25"]).success();
    let [a, b, child] = [a, b, out].map(|dir| torch_model(&dir));
    for name in ["long", "one_piece", "piece_and_one", "scalar"] {
        let (x, y) = (a[name].values(), b[name].values());
        let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        let cos = dot(&x, &y) / (dot(&x, &x) * dot(&y, &y)).sqrt();
        let theta = cos.clamp(-1.0, 1.0).acos();
        let (s0, s1) = if cos.abs() > 0.9995 {
            (0.75, 0.25)
        } else {
            ((0.75 * theta).sin() / theta.sin(), (0.25 * theta).sin() / theta.sin())
        };
        let expected: Vec<f64> = x.iter().zip(&y).map(|(x, y)| s0 * x + s1 * y).collect();
        if child[name].kind == Kind::Half {
            let expected = rounded(&expected, &child[name].shape, Kind::Half);
            assert!(distance(&child[name], &expected).0 <= 1, "{name}");
        } else {
            // Where the terms cancel, float32's error is that of the terms, which are below 2.
            let error = |(found, expected): (f64, &f64)| (found - expected).abs();
            let worst =
                child[name].values().into_iter().zip(&expected).map(error).fold(0.0, f64::max);
            assert!(worst < 2f64.powi(-22), "{name}: {worst}");
        }
    }
    assert_eq!(child["empty"].shape, [0, 3]);
    assert_eq!(child["counts"], a["counts"]);
}

#[test]
fn several_t_in_one_pass_are_the_children_of_single_runs() {
    let dir = tempfile::tempdir().unwrap();
    for pair in PAIRS {
        let [a, b] = parents(pair);
        let all = dir.path().join(format!("{pair}-all-{{t}}"));
        merge(&a, &b, &all, &["-t", "0,0.3,1", "--max-shard-size", "100KB"]).success();
        for t in ["0", "0.3", "1"] {
            let one = dir.path().join(format!("{pair}-one-{t}"));
            merge(&a, &b, &one, &["-t", t, "--max-shard-size", "100KB"]).success();
            let mut files = [snapshot(&dir.path().join(format!("{pair}-all-{t}"))), snapshot(&one)];
            for files in &mut files {
                // It names all values of t that were asked for.
                assert!(files.remove(Path::new("slerp_merge.json")).is_some());
            }
            assert!(files[0] == files[1], "{pair} at {t}");
        }
    }
}

#[test]
fn another_dtype_is_the_same_child_rounded_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = parents("llama");
    let parent = torch_model(&a);
    for (dtype, kind) in
        [("float32", Kind::Float), ("bfloat16", Kind::BFloat16), ("float16", Kind::Half)]
    {
        let out = dir.path().join(dtype);
        merge(&b, &a, &out, &["-t", "1", "--extend", "zero", "--dtype", dtype]).success();
        let child = torch_model(&out);
        for (name, tensor) in &parent {
            let values = tensor.values();
            let found = child[name].values();
            let expected = rounded(&values, &tensor.shape, kind).values();
            assert_eq!(child[name].kind, kind);
            assert_eq!(found[..expected.len()], expected, "{name}");
        }
        let config = std::fs::read_to_string(out.join("config.json")).unwrap();
        assert!(config.contains(&format!("\"dtype\": \"{dtype}\"")), "{config}");
    }
    let out = dir.path().join("half");
    merge(&a, &b, &out, &["--dtype", "float32"]).success();
    let expected = torch_model(&fixture("expected/llama_t0.5"));
    for (name, tensor) in torch_model(&out) {
        let narrowed = Loaded::of(
            &Tensor::from_data_size(&tensor.bytes, &tensor.shape, tensor.kind).to_kind(Kind::Half),
        );
        let own_rows = if tensor.shape[0] == 520 { 512 } else { i64::MAX };
        assert_close(&narrowed, &expected[&name], own_rows, &name);
    }
}

#[test]
fn parents_of_two_dtypes_give_a_child_in_the_primarys() {
    let dir = tempfile::tempdir().unwrap();
    let a = Dict::new().with("w", DType::BFloat16, &[2], &[1.0, 0.0]).bare(dir.path(), "a");
    let b = Dict::new().with("w", DType::Float64, &[2], &[0.0, 1.0]).bare(dir.path(), "b");
    let out = dir.path().join("child");
    let run = merge(&a, &b, &out, &[]).success();
    assert!(run.stderr.contains("1 pair differs in dtype, `w`"), "{}", run.stderr);
    let half = 0.5f64.sqrt();
    assert_eq!(torch_model(&out)["w"], rounded(&[half, half], &[2], Kind::BFloat16));
}

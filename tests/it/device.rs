//! The engine of GPUs, with the CPU in the place of the GPU: small memories, several devices,
//! failures. What only a GPU can show is left to scripts/gpu_check.sh.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use llm_slerp_merge::tensor::DType;

use crate::build::{Dict, noise};
use crate::support::{
    Loaded, Run, child_bytes, command, fixture, listing, merge, parent_bytes, run, torch_model,
};
use crate::ulp::{distance, unit};
use crate::words::reordered;

const PAIRS: [&str; 3] = ["llama", "gpt2", "neox"];

fn parents(pair: &str) -> [PathBuf; 2] {
    ["primary", "secondary"].map(|side| fixture(pair).join(side))
}

/// Runs `merge A B -o OUT --device cuda` on stand-ins, `stand_ins` in words of
/// src/engine/faults.rs.
fn merge_on(stand_ins: &str, [a, b]: &[PathBuf; 2], out: &Path, options: &[&str]) -> Run {
    let mut command = command();
    command.env("LLM_SLERP_MERGE_TEST_DEVICES", stand_ins);
    command.arg("merge").args([a, b]).arg("-o").arg(out);
    command.args(["--no-fsync", "--overwrite"]);
    if !options.contains(&"--device") {
        command.args(["--device", "cuda"]);
    }
    run(command.args(options))
}

/// Holds a child of a device to the CPU's: at most one unit in the last place apart, in at most one
/// element of 100. (The sums differ in the tenth digit; and along a line at a t of few digits many
/// exact values lie half way between two of float16's, of which either is right.) Where the parents'
/// elements cancel, what is left is that tenth digit, so there it is [`CANCELLED`] of the tensor's
/// largest element.
#[track_caller]
fn assert_near(found: &BTreeMap<String, Loaded>, expected: &BTreeMap<String, Loaded>, what: &str) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let (mut differing, mut all) = (0, 0);
    for (name, tensor) in found {
        let (furthest, count) = distance(tensor, &expected[name]);
        differing += count;
        all += tensor.shape.iter().product::<i64>();
        if furthest <= 1 {
            continue;
        }
        let (found, expected) = (tensor.values(), expected[name].values());
        let largest = expected.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
        for (x, y) in found.iter().zip(&expected) {
            let unit = unit(tensor.kind, x.abs().max(y.abs()));
            let allowed = unit.max(CANCELLED * largest);
            assert!((x - y).abs() <= allowed, "{what}: {name} has {x} for {y}");
        }
    }
    let all = usize::try_from(all).unwrap();
    assert!(differing * 100 <= all, "{what}: {differing} of {all} differ");
}

const CANCELLED: f64 = 1e-8;

/// Two models with a tensor of two spans (4,194,304 elements each), some of odd sizes, rows to be
/// added, three dtypes and integers.
fn wide_pair(dir: &Path) -> [PathBuf; 2] {
    let parent = |name: &str, seed: u64, rows: u64| {
        let long = noise(4_194_304 + 70_001, seed);
        let embedding = noise(usize::try_from(rows * 300).unwrap(), seed + 4);
        let config = format!(r#"{{"model_type": "x", "vocab_size": {rows}}}"#);
        Dict::new()
            .with("model.embed_tokens.weight", DType::BFloat16, &[rows, 300], &embedding)
            .with("long", DType::Float16, &[4_264_305], &long)
            .noise("scalar", &[], seed + 1)
            .noise("empty", &[0, 3], seed)
            .noise("one_piece", &[65_536], seed + 2)
            .with("piece_and_one", DType::Float64, &[65_537], &noise(65_537, seed + 3))
            .with("counts", DType::Int64, &[3], &[1.0, 2.0, 3.0])
            .model(dir, name, &config)
    };
    [parent("a", 10, 1000), parent("b", 20, 1007)]
}

#[test]
fn rows_are_merged_by_word_on_a_device_too() {
    let dir = tempfile::tempdir().unwrap();
    let parents = reordered(dir.path());
    let child = dir.path().join("child");
    merge_on("devices=1", &parents, &child, &["-t", "0.3", "--vocab", "union"]).success();
    assert_eq!(torch_model(&child), torch_model(&parents[0]));
}

#[test]
fn a_devices_child_is_the_cpus_to_one_unit_in_the_last_place() {
    let dir = tempfile::tempdir().unwrap();
    let wide = wide_pair(dir.path());
    let all = PAIRS.map(|pair| (pair, parents(pair))).into_iter().chain([("wide", wide)]);
    for (name, pair) in all {
        for options in [
            &["-t", "0.3"][..],
            &["-t", "0.5", "--extend", "bridge"],
            &["-t", "0.7", "--method", "linear", "--extend", "inherit"],
            &["-t", "0.4", "--extend", "mean", "--missing", "union"],
        ] {
            // The big one once along the arc and once along the line.
            if name == "wide" && ["bridge", "mean"].iter().any(|mode| options.contains(mode)) {
                continue;
            }
            let outs = ["cpu", "device"].map(|kind| dir.path().join(kind));
            merge(
                &pair[0],
                &pair[1],
                &outs[0],
                &[options, &["--device", "cpu", "--overwrite"]].concat(),
            )
            .success();
            let run = merge_on("devices=1", &pair, &outs[1], options).success();
            assert!(!run.stderr.contains("computed on the CPU"), "{}", run.stderr);
            let [cpu, device] = outs.map(|out| torch_model(&out));
            // torch's f64 words are compared as numbers: no rounding to speak of.
            let narrow = |model: BTreeMap<String, Loaded>| -> BTreeMap<String, Loaded> {
                model.into_iter().filter(|(name, _)| name != "piece_and_one").collect()
            };
            if let Some(tensor) = cpu.get("piece_and_one") {
                let pairs = tensor.values().into_iter().zip(device["piece_and_one"].values());
                let furthest = pairs.map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
                assert!(furthest < 1e-14, "{furthest}");
            }
            assert_near(&narrow(device), &narrow(cpu), &format!("{name} {options:?}"));
        }
    }
}

#[test]
fn another_dtype_on_a_device_is_the_cpus_to_one_unit() {
    let dir = tempfile::tempdir().unwrap();
    for dtype in ["float32", "bfloat16", "float16"] {
        for t in ["0", "0.5", "1"] {
            let pair = parents("llama");
            let outs = ["cpu", "device"].map(|kind| dir.path().join(kind));
            let options = ["-t", t, "--dtype", dtype];
            merge(&pair[0], &pair[1], &outs[0], &[&options[..], &["--overwrite"]].concat())
                .success();
            merge_on("devices=1", &pair, &outs[1], &options).success();
            let [cpu, device] = outs.map(|out| torch_model(&out));
            assert_near(&device, &cpu, &format!("{dtype} {t}"));
        }
    }
}

#[test]
fn the_ends_and_equal_parents_are_exact_on_a_device() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("child");
    for pair in PAIRS {
        let [a, b] = parents(pair);
        for (t, parent) in [("0", &a), ("1", &b)] {
            merge_on("devices=2", &[a.clone(), b.clone()], &out, &["-t", t]).success();
            let (child, parent) = (child_bytes(&out), parent_bytes(parent));
            let mut compared = 0;
            for (name, bytes) in child.iter().filter(|(name, _)| parent.contains_key(*name)) {
                assert!(bytes.starts_with(&parent[name]), "{pair} {t} {name}");
                compared += 1;
            }
            assert!(compared > 10);
        }
        merge_on("devices=1", &[b.clone(), b.clone()], &out, &["-t", "0.37"]).success();
        assert_eq!(child_bytes(&out), parent_bytes(&b), "{pair}");
    }
}

#[test]
fn memory_threads_and_devices_do_not_change_a_bit_of_a_devices_child() {
    let dir = tempfile::tempdir().unwrap();
    let pair = wide_pair(dir.path());
    let mut first = None;
    for (stand_ins, options) in [
        ("devices=1", &["--threads", "1", "-t", "0.3,0.6"][..]),
        ("devices=1", &["--threads", "1", "-t", "0.3,0.6"]),
        ("devices=1", &["--threads", "5", "-t", "0.3,0.6", "--device-memory", "16MiB"]),
        ("devices=1", &["--threads", "2", "-t", "0.3,0.6", "--device-memory", "200MiB"]),
        ("devices=3", &["--threads", "3", "-t", "0.3,0.6", "--device", "cuda:0,2,1"]),
        ("devices=2,memory=40MiB", &["--threads", "4", "-t", "0.3,0.6", "--device", "cuda:0,1"]),
        // Allocations and kernels that fail in either pass.
        ("devices=1,oom=1x2", &["--threads", "1", "-t", "0.3,0.6"]),
        ("devices=1,oom=4", &["--threads", "1", "-t", "0.3,0.6"]),
        ("devices=1,oom=9x2", &["--threads", "1", "-t", "0.3,0.6"]),
        ("devices=1,oom=19x3", &["--threads", "2", "-t", "0.3,0.6"]),
    ] {
        let out = dir.path().join("child-{t}");
        merge_on(stand_ins, &pair, &out, options).success();
        let children = ["0.3", "0.6"].map(|t| child_bytes(&dir.path().join(format!("child-{t}"))));
        let expected = first.get_or_insert_with(|| children.clone());
        assert!(children == *expected, "{stand_ins} {options:?} give another child");
    }
}

#[test]
fn a_device_without_memory_leaves_the_tensor_to_the_cpu_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let pair = parents("gpt2");
    let outs = ["cpu", "device"].map(|kind| dir.path().join(kind));
    merge(&pair[0], &pair[1], &outs[0], &["--device", "cpu"]).success();
    let run = merge_on("oom=1x1000", &pair, &outs[1], &["--json", "--threads", "1"]).success();
    assert!(run.stderr.contains("cuda:0 ran out of memory, so 28 tensors were"), "{}", run.stderr);
    assert_eq!(child_bytes(&outs[0]), child_bytes(&outs[1]));
    let devices = |json: &serde_json::Value| -> Vec<String> {
        let tensors = json["tensors"].as_array().unwrap().iter();
        tensors.map(|tensor| tensor["device"].as_str().unwrap().to_owned()).collect()
    };
    assert!(devices(&run.json()).iter().all(|device| device == "cpu"));
    // Five tries for the first tensor, from 32 pieces to 2: the sixth succeeds.
    let run = merge_on("oom=1x5", &pair, &outs[1], &["--json", "--threads", "1"]).success();
    assert!(run.stderr.contains("so 1 tensor was"), "{}", run.stderr);
    let found = devices(&run.json());
    assert_eq!(found.iter().filter(|device| *device == "cpu").count(), 1);
    assert_eq!(found.iter().filter(|device| *device == "cuda:0").count(), 27);
    let kept = std::fs::read_to_string(outs[1].join("slerp_merge.json")).unwrap();
    assert_eq!(devices(&serde_json::from_str(&kept).unwrap()), found);
}

#[test]
fn an_overflow_on_a_device_is_told_with_its_place_in_the_tensor() {
    let mut values = vec![1.0; 200_000];
    values[150_000..150_002].fill(70_000.0);
    let dir = tempfile::tempdir().unwrap();
    let dict = Dict::new().f32("w", &[200_000], &values);
    let parents = ["a", "b"].map(|name| dict.model(dir.path(), name, "{}"));
    // In so little memory a chunk has two pieces, 131,072 elements.
    let options = ["--dtype", "float16", "--device-memory", "16MiB"];
    let said = merge_on("devices=1", &parents, &dir.path().join("child"), &options).refused(65);
    let place = "2 beyond its largest in one piece, the first at element 150000";
    assert!(said.contains(place), "{said}");
}

#[test]
fn a_broken_device_ends_the_merge_with_71_and_a_wrong_one_with_74() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("child");
    let said = merge_on("sticky=7", &parents("gpt2"), &out, &["--threads", "1"]).refused(71);
    assert!(said.contains("the GPU broke down"), "{said}");
    assert!(said.contains("an illegal memory access"), "{said}");
    // Every tensor of this pair is one piece, and that one is checked.
    let said = merge_on("wrong=5", &parents("gpt2"), &out, &["--threads", "1"]).refused(74);
    assert!(said.contains("the GPU computed wrong values"), "{said}");
    assert_eq!(listing(dir.path()), [""; 0]);
}

#[test]
fn bad_parents_are_refused_on_a_device_as_on_the_cpu() {
    let dir = tempfile::tempdir().unwrap();
    let mut values = noise(70_000, 3);
    let parent = |name: &str, values: &[f64]| {
        Dict::new().with("w", DType::Float16, &[70_000], values).bare(dir.path(), name)
    };
    let good = parent("good", &values);
    values[66_000] = f64::NAN;
    let bad = parent("bad", &values);
    let huge = parent("huge", &[65_504.0; 70_000]);
    let turned: Vec<f64> =
        (0..70_000).map(|i| if i < 100 { -65_504.0 } else { 65_504.0 }).collect();
    let turned = parent("turned", &turned);
    let out = dir.path().join("child");
    for method in ["slerp", "linear"] {
        for [a, b] in [[&good, &bad], [&bad, &good]] {
            let options = ["--method", method];
            let on_cpu = merge(a, b, &out, &options).refused(65);
            let pair = [a.clone(), b.clone()];
            assert_eq!(merge_on("devices=1", &pair, &out, &options).refused(65), on_cpu);
            assert!(on_cpu.contains("1 NaN or Inf, the first at element 66000"), "{on_cpu}");
            merge_on("devices=1", &pair, &out, &["--allow-nonfinite"]).success();
            std::fs::remove_dir_all(&out).unwrap();
        }
    }
    let pair = [huge, turned];
    let said = merge_on("devices=1", &pair, &out, &["--dtype", "float16"]);
    let on_cpu = merge(&pair[0], &pair[1], &out, &["--dtype", "float16", "--overwrite"]);
    assert_eq!(
        (said.code, said.stderr.lines().next()),
        (on_cpu.code, on_cpu.stderr.lines().next())
    );
}

#[test]
fn old_and_compressed_files_are_merged_on_a_device() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["format/legacy.bin", "format/deflated.bin", "format/views.bin"] {
        let outs = ["cpu", "device"].map(|kind| dir.path().join(kind));
        let pair = [fixture(name), fixture(name)];
        merge(&pair[0], &pair[1], &outs[0], &["--device", "cpu", "--overwrite"]).success();
        merge_on("devices=1", &pair, &outs[1], &[]).success();
        assert_eq!(child_bytes(&outs[0]), child_bytes(&outs[1]), "{name}");
    }
}

#[test]
fn a_device_without_streams_and_page_locked_memory_says_so_and_makes_the_same_child() {
    let dir = tempfile::tempdir().unwrap();
    let pair = parents("gpt2");
    let outs = ["sound", "slow"].map(|kind| dir.path().join(kind));
    let sound = merge_on("devices=1", &pair, &outs[0], &[]).success();
    assert_eq!(sound.stderr.lines().filter(|line| line.contains("WARN")).count(), 0);
    let slow = merge_on("stream=none,pinned=none", &pair, &outs[1], &[]).success();
    for words in ["a worker shares the default stream", "no page-locked memory"] {
        assert!(slow.stderr.contains(words), "{}", slow.stderr);
    }
    assert_eq!(child_bytes(&outs[0]), child_bytes(&outs[1]));
}

#[test]
fn a_merge_that_is_only_measured_leaves_no_child() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = parents("gpt2");
    for device in ["cpu", "cuda"] {
        let mut command = command();
        command.env("LLM_SLERP_MERGE_TEST_DEVICES", "devices=1");
        command.env("LLM_SLERP_MERGE_TEST_SINK", "none").arg("merge").args([&a, &b]);
        command.arg("-o").arg(dir.path().join("child")).args(["-v", "--device", device]);
        let said = run(&mut command).refused(2);
        assert!(said.contains("nothing was written"), "{said}");
        assert!(said.contains("merging took "), "{said}");
        assert_eq!(listing(dir.path()), [""; 0]);
    }
}

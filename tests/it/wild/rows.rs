//! Vocabularies that are not the first dimension, and edge rows that are no special token's.

use std::fs;
use std::path::{Path, PathBuf};

use llm_slerp_merge::tensor::DType;
use tch::Kind;

use crate::build::{Dict, noise};
use crate::support::{
    Run, child_bytes, command, fixture, fixture_json, merge, own_reader, run, tool, torch_file,
    torch_model,
};
use crate::ulp::{distance, rounded};

const MODES: [&str; 5] = ["gradient", "bridge", "inherit", "mean", "zero"];
const KINDS: [&str; 3] = ["bart", "marian", "mobilebert"];

fn pair(kind: &str) -> [PathBuf; 2] {
    ["a", "b"].map(|side| fixture("wild/rows").join(kind).join(side))
}

fn plan(parents: &[PathBuf; 2], options: &[&str]) -> Run {
    let [a, b] = parents.each_ref().map(|path| path.to_str().unwrap());
    tool(["plan", a, b, "-o", "child"].iter().chain(options)).success()
}

/// The line of a plan that names the edge rows.
fn edge_line(parents: &[PathBuf; 2], options: &[&str]) -> Option<String> {
    let said = plan(parents, options).stdout;
    said.lines().find_map(|line| line.strip_prefix("edge rows: ")).map(str::to_owned)
}

#[test]
fn children_are_those_of_numpy_in_the_files_of_transformers() {
    let dir = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let [a, b] = pair(kind);
        for (first, second, options, expected) in [
            (&a, &b, &["-t", "0.3"][..], "expected_ab_0.3"),
            (&b, &a, &["-t", "0.6", "--extend", "bridge"], "expected_ba_0.6"),
        ] {
            let out = dir.path().join(format!("{kind}-{expected}"));
            merge(first, second, &out, options).success();
            let expected = fixture("wild/rows").join(kind).join(expected);
            let [found, wanted] = [&out, &expected].map(|path| path.join("pytorch_model.bin"));
            let length = |path: &Path| fs::metadata(path).unwrap().len();
            assert_eq!(length(&found), length(&wanted));
            let (found, wanted) = (torch_file(&found), torch_file(&wanted));
            assert_eq!(found.len(), wanted.len());
            for ((name, found), (other, wanted)) in found.iter().zip(&wanted) {
                assert_eq!((name, found.kind, &found.shape), (other, wanted.kind, &wanted.shape));
                let (furthest, _) = distance(found, wanted);
                assert!(furthest <= 1, "{kind}: {name} is {furthest} units away");
            }
            let config = fs::read_to_string(out.join("config.json")).unwrap();
            assert!(config.contains("\"vocab_size\": 208"), "{config}");
        }
    }
}

#[test]
fn every_mode_adds_along_the_dimension_of_the_tokens() {
    let dir = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let expected = fixture_json(&format!("wild/rows/{kind}/added.json"));
        let [short, long] = pair(kind);
        for mode in MODES {
            for (a, b, t) in [(&short, &long, "0"), (&long, &short, "1")] {
                let out = dir.path().join(format!("{kind}-{mode}-{t}"));
                merge(a, b, &out, &["-t", t, "--extend", mode]).success();
                let child = torch_model(&out);
                for (name, added) in expected[mode].as_object().unwrap() {
                    let tensor = &child[name];
                    let axis = tensor.shape.iter().position(|size| *size == 208).unwrap();
                    let width: i64 = tensor.shape[axis + 1..].iter().product();
                    let [own, all] = [200, 208].map(|rows| usize::try_from(rows * width).unwrap());
                    let found: Vec<f64> = tensor
                        .values()
                        .chunks(all)
                        .flat_map(|block| block[own..].to_vec())
                        .collect();
                    let wanted: Vec<f64> =
                        added.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
                    let shape = [i64::try_from(wanted.len()).unwrap()];
                    let [found, wanted] =
                        [&found, &wanted].map(|values| rounded(values, &shape, Kind::Half));
                    let (furthest, _) = distance(&found, &wanted);
                    assert!(furthest <= 1, "{kind}, {mode}: {name} is {furthest} units away");
                }
            }
        }
    }
}

#[test]
fn own_places_and_the_longer_parent_stay_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let [short, long] = pair(kind);
        for mode in MODES {
            let out = dir.path().join(format!("{kind}-{mode}"));
            merge(&short, &long, &out, &["-t", "1", "--extend", mode]).success();
            for (name, _, bytes) in own_reader(&long) {
                assert_eq!(child_bytes(&out)[&name], bytes, "{kind}, {mode}: {name}");
            }
        }
        let out = dir.path().join(kind);
        merge(&short, &long, &out, &["-t", "0"]).success();
        let child = torch_model(&out);
        for (name, _, bytes) in own_reader(&short) {
            let tensor = &child[&name];
            let axis = tensor.shape.iter().position(|size| *size == 208);
            let width: i64 = tensor.shape[axis.map_or(0, |axis| axis + 1)..].iter().product();
            let block = axis.map_or(bytes.len(), |_| usize::try_from(208 * width * 2).unwrap());
            let own = if axis.is_some() { block / 208 * 200 } else { block };
            let found: Vec<u8> =
                tensor.bytes.chunks(block).flat_map(|block| block[..own].to_vec()).collect();
            assert_eq!(found, bytes, "{kind}: {name}");
        }
    }
}

#[test]
fn the_plan_names_dimension_and_edge_rows() {
    let said = plan(&pair("bart"), &[]).stdout;
    assert!(said.contains("[1, 208]  slerp, primary +8 columns"), "{said}");
    assert!(said.contains("[208, 8]  slerp, primary +8 rows"), "{said}");
    let line = edge_line(&pair("bart"), &[]).unwrap();
    assert_eq!(
        line,
        "199 and 3 of the primary; row 0 is bos_token_id, row 1 is pad_token_id and row 2 is eos_token_id, so row 3 is the first edge row"
    );
    let line = edge_line(&pair("marian"), &["--extend", "bridge"]).unwrap();
    assert_eq!(
        line,
        "198 of the primary and 206 of the secondary; row 199 is pad_token_id, so row 198 is the last edge row; row 207 of the secondary is pad_token_id, so row 206 is its last edge row"
    );
    for mode in ["inherit", "mean", "zero"] {
        assert_eq!(edge_line(&pair("marian"), &["--extend", mode]), None);
    }
    let plan = &plan(&pair("marian"), &["--json"]).json()["plan"];
    assert_eq!((&plan["edges"]["side"], &plan["edges"]["last"]), (&"primary".into(), &198.into()));
    let storages = plan["storages"].as_array().unwrap();
    let bias = storages.iter().find(|storage| storage["name"] == "final_logits_bias").unwrap();
    assert_eq!(
        bias["extension"],
        serde_json::json!({
            "side": "primary", "from_rows": 200, "to_rows": 208, "axis": 1,
            "edges": { "last": 198, "first": 1, "longer_last": 206 }
        })
    );
}

#[test]
fn find_gives_one_letter_to_what_is_merged() {
    for kind in KINDS {
        let models = pair(kind).map(|path| path.to_str().unwrap().to_owned());
        let said = tool(["find", &models[0], &models[1]]).success().stdout;
        assert!(said.contains("A: 2 models, 1 pair"), "{said}");
    }
}

#[test]
fn extension_error_names_tensors_of_every_dimension() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = pair("bart");
    let said = merge(&a, &b, &dir.path().join("child"), &["--extend", "error"]).refused(65);
    assert!(said.contains("final_logits_bias: 200 rows and 208 rows"), "{said}");
}

/// A GPT-2 of float32: an embedding of `rows` rows of two, row r being r and −3·r, and its head.
fn gpt2(dir: &Path, name: &str, rows: u32, config: &str) -> PathBuf {
    let values: Vec<f64> =
        (0..rows).flat_map(|row| [f64::from(row), -3.0 * f64::from(row)]).collect();
    Dict::new()
        .f32("transformer.wte.weight", &[u64::from(rows), 2], &values)
        .f32("transformer.ln_f.weight", &[2], &[1.0, 2.0])
        .tied("lm_head.weight", "transformer.wte.weight")
        .model(dir, name, config)
}

/// First elements of the rows that a merge at t = 0 adds to `short`.
fn added(dir: &Path, short: &Path, long: &Path, mode: &str) -> Vec<f64> {
    let out = dir.join("child");
    merge(short, long, &out, &["-t", "0", "--extend", mode, "--overwrite"]).success();
    let child = torch_model(&out);
    assert_eq!(child["lm_head.weight"].bytes, child["transformer.wte.weight"].bytes);
    child["transformer.wte.weight"].values().chunks(2).skip(8).map(|row| row[0]).collect()
}

#[test]
fn the_end_of_text_in_the_last_row_is_no_edge_row_wherever_its_id_stands() {
    let dir = tempfile::tempdir().unwrap();
    let long = gpt2(
        dir.path(),
        "long",
        11,
        r#"{"bos_token_id": 7, "eos_token_id": 7, "pad_token_id": 10}"#,
    );
    for (position, (config, generation)) in [
        (r#"{"bos_token_id": 7, "eos_token_id": 7}"#, None),
        (r#"{"eos_token_id": [7, 2]}"#, None),
        (r#"{"text_config": {"eos_token_id": 7}}"#, None),
        ("{}", Some(r#"{"eos_token_id": [2, 7]}"#)),
        (r#"{"eos_token_id": 2}"#, Some(r#"{"pad_token_id": 7, "top_p": NaN}"#)),
    ]
    .into_iter()
    .enumerate()
    {
        let short = gpt2(dir.path(), &format!("short{position}"), 8, config);
        if let Some(text) = generation {
            fs::write(short.join("generation_config.json"), text).unwrap();
        }
        // From row 6 (7 is the end of text) to row 0: three quarters, a half, a quarter of 6.
        assert_eq!(added(dir.path(), &short, &long, "gradient"), [4.5, 3.0, 1.5], "{config}");
        // To row 9 of the longer parent, whose row 10 is its padding.
        assert_eq!(added(dir.path(), &short, &long, "bridge"), [6.75, 7.5, 8.25], "{config}");
        assert_eq!(added(dir.path(), &short, &long, "inherit"), [8.0, 9.0, 10.0]);
        assert_eq!(added(dir.path(), &short, &long, "mean"), [3.5, 3.5, 3.5]);
    }
    // The longer parent's ids are not the shorter one's.
    let plain = gpt2(dir.path(), "plain", 8, "{}");
    assert_eq!(added(dir.path(), &plain, &long, "gradient"), [5.25, 3.5, 1.75]);
}

#[test]
fn where_every_row_is_special_the_outermost_are_taken_and_the_plan_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let all = r#"{"bos_token_id": 0, "eos_token_id": [1, 2, 3, 4, 5, 6, 7]}"#;
    let short = gpt2(dir.path(), "short", 8, all);
    let long = gpt2(dir.path(), "long", 11, "{}");
    assert_eq!(added(dir.path(), &short, &long, "gradient"), [5.25, 3.5, 1.75]);
    let line = edge_line(&[short, long], &[]).unwrap();
    assert_eq!(
        line,
        "7 and 0 of the primary; every row is a special token's, so the outermost is taken all the same"
    );
}

#[test]
fn a_child_of_other_edge_rows_is_not_the_one_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    gpt2(dir.path(), "short", 8, "{}");
    gpt2(dir.path(), "long", 11, "{}");
    let job = serde_json::json!({ "primary": "long", "secondary": "short", "output": "child" });
    let manifest = dir.path().join("merges.json");
    fs::write(&manifest, serde_json::json!({ "merges": [job] }).to_string()).unwrap();
    let batch =
        |options: &[&str]| tool(["batch", manifest.to_str().unwrap()].iter().chain(options));
    batch(&[]).success();
    assert!(batch(&["--json"]).success().stdout.contains("\"present\""));
    let note = r#"{"eos_token_id": 7}"#;
    fs::write(dir.path().join("short/generation_config.json"), note).unwrap();
    let said = batch(&[]);
    assert!(said.stderr.contains("its added rows are made from other edge rows"), "{said:?}");
}

#[test]
fn a_broken_generation_config_is_refused_by_name_by_merge_and_verify() {
    let dir = tempfile::tempdir().unwrap();
    let whole = gpt2(dir.path(), "whole", 8, r#"{"eos_token_id": 7}"#);
    let broken = gpt2(dir.path(), "broken", 8, r#"{"eos_token_id": 7}"#);
    fs::write(broken.join("generation_config.json"), "{\"eos_token_id\": ").unwrap();
    for [a, b] in [[&whole, &broken], [&broken, &whole]] {
        let said = merge(a, b, &dir.path().join("child"), &[]).refused(65);
        assert!(said.contains("generation_config.json: expected a JSON object"), "{said}");
    }
    let said = tool(["verify".as_ref(), broken.as_os_str()]);
    assert_eq!(said.code, Some(65));
    assert!(said.stdout.contains("generation_config.json"), "{}", said.stdout);
}

#[test]
fn a_wide_matrix_with_its_tokens_last_is_read_in_pieces_on_cpu_and_device() {
    let dir = tempfile::tempdir().unwrap();
    // 1,050 rows of 4,400: two spans of 64 pieces, pieces that begin and end anywhere.
    const WIDTH: u64 = 1050;
    let name = "cls.predictions.dense.weight";
    let values = |rows: u64, seed: u64| noise(usize::try_from(WIDTH * rows).unwrap(), seed);
    let parent = |file: &str, rows: u64, seed: u64| {
        Dict::new()
            .noise("bert.embeddings.word_embeddings.weight", &[rows, 2], seed)
            .with(name, DType::Float16, &[WIDTH, rows], &values(rows, seed))
            .noise("cls.predictions.bias", &[rows], seed + 1)
            .model(dir.path(), file, r#"{"eos_token_id": 4299, "bos_token_id": 0}"#)
    };
    let (short, long) = (parent("short", 4300, 1), parent("long", 4400, 2));
    let (a, b) = (values(4300, 1), values(4400, 2));
    let half = |values: &[f64]| rounded(values, &[-1], Kind::Half).values();
    let (a, b) = (half(&a), half(&b));
    let merged = |mode: &str, options: &[&str], device: &str| {
        let out = dir.path().join(format!("{mode}-{device}-{}", options.len()));
        let mut command = command();
        command.env("LLM_SLERP_MERGE_TEST_DEVICES", "devices=1");
        command.arg("merge").args([&short, &long]).arg("-o").arg(&out).args(options);
        run(command.args(["--extend", mode, "--device", device, "--no-fsync"])).success();
        torch_model(&out)[name].clone()
    };
    for (mode, devices) in
        [("gradient", &["cpu", "cuda"][..]), ("inherit", &["cpu", "cuda"]), ("mean", &["cpu"])]
    {
        let mut extended = Vec::with_capacity(b.len());
        for (own, other) in a.chunks(4300).zip(b.chunks(4400)) {
            extended.extend_from_slice(own);
            let mean = own.iter().sum::<f64>() / 4300.0;
            let new = (1..=100).map(|i| {
                let between = |start: f64, end: f64| {
                    (start * f64::from(101 - i) + end * f64::from(i)) / 101.0
                };
                match mode {
                    "gradient" => between(own[4298], own[1]),
                    "inherit" => other[4299 + usize::try_from(i).unwrap()],
                    _ => mean,
                }
            });
            extended.extend(half(&new.collect::<Vec<_>>()));
        }
        let linear: Vec<f64> = extended.iter().zip(&b).map(|(a, b)| 0.75 * a + 0.25 * b).collect();
        let expected = rounded(&linear, &[1050, 4400], Kind::Half);
        for device in devices {
            let found = merged(mode, &["-t", "0.25", "--method", "linear"], device);
            let (furthest, _) = distance(&found, &expected);
            assert!(furthest <= 1, "{mode} on {device}: {furthest} units away");
        }
    }
    // Over an arc, where the tensor is gone through twice.
    let (furthest, _) = distance(&merged("gradient", &[], "cpu"), &merged("gradient", &[], "cuda"));
    assert!(furthest <= 1, "{furthest} units between cpu and device");
}

#[test]
fn what_may_be_no_vocabulary_is_refused_with_both_shapes() {
    let dir = tempfile::tempdir().unwrap();
    let parent = |file: &str, rows: u64, name: &str, shape: &[u64]| {
        Dict::new().noise("model.embed_tokens.weight", &[rows, 2], 1).noise(name, shape, 2).model(
            dir.path(),
            file,
            r#"{"eos_token_id": 1}"#,
        )
    };
    for (name, a, b) in [
        // A width that grew like the vocabulary.
        ("model.adapter.weight", &[3, 20][..], &[3, 28][..]),
        // Two dimensions at once.
        ("final_logits_bias", &[20, 20], &[28, 28]),
        // Other sizes than the vocabularies'.
        ("final_logits_bias", &[1, 19], &[1, 28]),
        ("final_logits_bias", &[1, 28], &[1, 20]),
    ] {
        let [a_path, b_path] =
            [("a", 20, a), ("b", 28, b)].map(|(file, rows, shape)| parent(file, rows, name, shape));
        let said = merge(&a_path, &b_path, &dir.path().join("child"), &[]).refused(65);
        assert!(said.contains(&format!("{name}: {a:?} and {b:?}")), "{said}");
    }
}

#[test]
fn a_bias_that_only_the_shorter_parent_has_gets_the_childs_places() {
    let dir = tempfile::tempdir().unwrap();
    let embedding = |rows: u64| {
        let numel = usize::try_from(rows * 2).unwrap();
        Dict::new().f32("model.shared.weight", &[rows, 2], &noise(numel, rows))
    };
    let short = embedding(4).f32("final_logits_bias", &[1, 4], &[1.0, 2.0, 3.0, 4.0]).model(
        dir.path(),
        "short",
        r#"{"eos_token_id": 3}"#,
    );
    let long = embedding(5).model(dir.path(), "long", "{}");
    for (a, b) in [(&short, &long), (&long, &short)] {
        let out = dir.path().join("child");
        merge(a, b, &out, &["--missing", "union", "--overwrite"]).success();
        let bias = &torch_model(&out)["final_logits_bias"];
        // Half way between 3 (4 is the end of text's) and 1.
        assert_eq!((bias.values(), &bias.shape[..]), (vec![1.0, 2.0, 3.0, 4.0, 2.0], &[1, 5][..]));
    }
}

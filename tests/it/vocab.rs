//! Vocabularies of different length.

use std::fs;
use std::path::{Path, PathBuf};

use tch::Kind;

use crate::build::Dict;
use crate::support::{fixture, fixture_json, listing, merge, parent_bytes, rows, torch_model};
use crate::ulp::{distance, rounded};

const MODES: [&str; 5] = ["gradient", "bridge", "inherit", "mean", "zero"];
const VOCAB_TENSORS: [&str; 2] = ["model.embed_tokens.weight", "lm_head.weight"];

#[test]
fn new_rows_are_those_worked_out_whichever_parent_is_shorter() {
    let dir = tempfile::tempdir().unwrap();
    let expected = fixture_json("expected/extension_rows.json");
    let [short, long] = ["llama/primary", "llama/secondary"].map(fixture);
    let own = parent_bytes(&short);
    for mode in MODES {
        for (a, b, t) in [(&short, &long, "0"), (&long, &short, "1")] {
            let out = dir.path().join(format!("{mode}{t}"));
            merge(a, b, &out, &["-t", t, "--extend", mode]).success();
            let child = torch_model(&out);
            for tensor in VOCAB_TENSORS {
                assert_eq!(child[tensor].shape, [520, 64]);
                assert!(child[tensor].bytes.starts_with(&own[tensor]), "{mode}: {tensor}");
                let new_rows = expected[mode][tensor].as_array().unwrap();
                let values: Vec<f64> = new_rows
                    .iter()
                    .flat_map(|row| row.as_array().unwrap())
                    .map(|value| value.as_f64().unwrap())
                    .collect();
                let expected = rounded(&values, &[8, 64], Kind::Half);
                let (furthest, _) = distance(&rows(&child[tensor], 512, 520), &expected);
                assert!(furthest <= 1, "{mode}: {tensor} is {furthest} units away");
                if mode != "zero" {
                    let norms = rows(&child[tensor], 512, 520).values();
                    assert!(norms.chunks(64).all(|row| row.iter().any(|value| *value != 0.0)));
                }
            }
            // Nothing else is touched.
            for (name, bytes) in &own {
                if !VOCAB_TENSORS.contains(&name.as_str()) {
                    assert_eq!(&child[name].bytes, bytes, "{mode}: {name}");
                }
            }
        }
    }
}

#[test]
fn every_mode_leaves_the_longer_parent_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let [short, long] = ["llama/primary", "llama/secondary"].map(fixture);
    let whole = parent_bytes(&long);
    for mode in MODES {
        let out = dir.path().join(mode);
        merge(&short, &long, &out, &["-t", "1", "--extend", mode]).success();
        for (name, tensor) in torch_model(&out) {
            assert_eq!(tensor.bytes, whole[&name], "{mode}: {name}");
        }
    }
}

/// A model with a float32 embedding of `rows` rows of two and a head with a bias.
fn model(dir: &Path, name: &str, rows: u32, seed: f64) -> PathBuf {
    let rows_f: Vec<f64> = (0..rows).map(|row| seed + f64::from(row)).collect();
    let matrix: Vec<f64> = rows_f.iter().flat_map(|row| [*row, -row * 3.0]).collect();
    let n = u64::from(rows);
    Dict::new()
        .f32("model.embed_tokens.weight", &[n, 2], &matrix)
        .f32("model.norm.weight", &[2], &[1.0, 2.0])
        .f32("lm_head.weight", &[n, 2], &matrix)
        .f32("lm_head.bias", &[n], &rows_f)
        .model(
            dir,
            name,
            &format!(r#"{{"text_config": {{"vocab_size": {rows}}}, "a": [1.0, 1e-05]}}"#),
        )
}

#[test]
fn one_new_row_and_three_hundred_follow_the_formula() {
    let dir = tempfile::tempdir().unwrap();
    let short = model(dir.path(), "short", 3, 5.0);
    let float = |bytes: &[u8]| f64::from(f32::from_le_bytes(bytes.try_into().unwrap()));
    for added in [1, 300] {
        let long = model(dir.path(), &format!("long{added}"), 3 + added, 100.0);
        for mode in MODES {
            let out = dir.path().join(format!("child-{mode}-{added}"));
            merge(&short, &long, &out, &["-t", "0", "--extend", mode]).success();
            let child = torch_model(&out);
            let steps = f64::from(added) + 1.0;
            // The short bias is 5, 6, 7; the long one 100, 101, ...
            let expected: Vec<f64> = (1..=added)
                .map(|i| {
                    let (i, last) = (f64::from(i), 102.0 + f64::from(added));
                    match mode {
                        "gradient" => (1.0 - i / steps) * 7.0 + i / steps * 5.0,
                        "bridge" => (1.0 - i / steps) * 7.0 + i / steps * last,
                        "inherit" => 102.0 + i,
                        "mean" => 6.0,
                        _ => 0.0,
                    }
                })
                .collect();
            let wide: Vec<f64> = expected.iter().flat_map(|row| [*row, -row * 3.0]).collect();
            for (name, expected) in [("lm_head.bias", &expected), ("lm_head.weight", &wide)] {
                let found: Vec<f64> = rows(&child[name], 3, 3 + i64::from(added))
                    .bytes
                    .chunks_exact(4)
                    .map(float)
                    .collect();
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(expected) {
                    // Three float32 roundings of terms of that size.
                    let error = 3.0 * 2f64.powi(-24) * expected.abs().max(21.0);
                    assert!((found - expected).abs() <= error, "{mode}: {found}, not {expected}");
                }
            }
            let config = fs::read_to_string(out.join("config.json")).unwrap();
            let total = 3 + added;
            let expected =
                format!(r#"{{"text_config": {{"vocab_size": {total}}}, "a": [1.0, 1e-05]}}"#);
            assert_eq!(config, expected);
        }
    }
}

#[test]
fn the_default_is_the_gradient_and_its_rows_lie_strictly_between_the_edge_rows() {
    let dir = tempfile::tempdir().unwrap();
    let [short, long] = ["llama/primary", "llama/secondary"].map(fixture);
    let out = dir.path().join("child");
    merge(&short, &long, &out, &["-t", "0"]).success();
    let matrix = &torch_model(&out)["model.embed_tokens.weight"];
    let values = matrix.values();
    let row = |row: usize| &values[row * 64..(row + 1) * 64];
    for new in 512..520 {
        for (column, value) in row(new).iter().enumerate() {
            let (last, first) = (row(511)[column], row(0)[column]);
            assert!((last.min(first)..=last.max(first)).contains(value), "{new} {column}");
        }
        assert_ne!(row(new), row(511));
        assert_ne!(row(new), row(0));
    }
}

#[test]
fn extension_can_be_refused_and_every_tensor_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let [short, long] = ["llama/primary", "llama/secondary"].map(fixture);
    let out = dir.path().join("child");
    let said = merge(&short, &long, &out, &["--extend", "error"]).refused(65);
    for tensor in VOCAB_TENSORS {
        assert!(said.contains(&format!("{tensor}: 512 rows and 520 rows")), "{said}");
    }
    assert!(said.contains("2 tensors to extend") && said.contains("hint: "), "{said}");
    assert!(listing(dir.path()).is_empty());
}

#[test]
fn a_matrix_that_is_no_vocabulary_is_never_extended() {
    let dir = tempfile::tempdir().unwrap();
    let parent = |name: &str, rows: u64| {
        Dict::new()
            .noise("model.embed_tokens.weight", &[4, 2], 1)
            .noise("model.adapter.weight", &[rows, 2], 2)
            .bare(dir.path(), name)
    };
    let (a, b) = (parent("a", 4), parent("b", 5));
    let said = merge(&a, &b, &dir.path().join("child"), &[]).refused(65);
    assert!(said.contains("model.adapter.weight: [4, 2] and [5, 2]"), "{said}");
}

#[test]
fn a_tokenizer_with_more_ids_than_rows_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let [short, long] = ["llama/primary", "llama/secondary"].map(fixture);
    let copy = dir.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for name in listing(&short) {
        fs::copy(short.join(&name), copy.join(&name)).unwrap();
    }
    fs::copy(long.join("tokenizer.json"), copy.join("tokenizer.json")).unwrap();
    let said = merge(&copy, &copy, &dir.path().join("child"), &[]).refused(65);
    assert!(said.contains("tokenizer.json: expected ids below 512, found id 519"), "{said}");
    assert_eq!(listing(dir.path()), ["copy"]);
}

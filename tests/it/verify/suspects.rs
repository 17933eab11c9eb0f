//! What `verify` says of tensors that stand out though nothing is broken.

use std::path::{Path, PathBuf};

use llm_slerp_merge::tensor::DType;
use serde_json::Value;

use super::{fixture, found, json, run};
use crate::build::{Dict, noise};

/// A model of `layers` matrices, those named in `times` that many times larger.
fn layers(dir: &Path, dtype: DType, side: u64, layers: u64, times: &[(u64, f64)]) -> PathBuf {
    let mut dict = Dict::new().with("wte.weight", dtype, &[4, 4], &noise(16, 99));
    for layer in 0..layers {
        let scale = times.iter().find(|(at, _)| *at == layer).map_or(1.0, |(_, scale)| *scale);
        let numel = usize::try_from(side * side).unwrap();
        let values: Vec<f64> = noise(numel, layer).iter().map(|value| value * scale).collect();
        dict = dict.with(&format!("h.{layer}.mlp.weight"), dtype, &[side, side], &values);
    }
    dict.model(dir, "model", "{}")
}

fn of_kind<'v>(model: &'v Value, what: &str) -> Vec<&'v Value> {
    let findings = model["findings"].as_array().unwrap().iter();
    findings.filter(|finding| finding["what"] == what).collect()
}

#[test]
fn a_matrix_far_from_its_like_is_noted_with_its_size() {
    let dir = tempfile::tempdir().unwrap();
    // Uniform in -1..1: a root mean square of 1/√3.
    let expected = 1.0 / 3f64.sqrt();
    for dtype in [DType::Float16, DType::BFloat16, DType::Float32] {
        // The large ones have more than a mebibyte, where not all elements are squared.
        for side in [40, 740] {
            let path = layers(dir.path(), dtype, side, 5, &[(1, 20.0), (3, 0.05)]);
            let (code, model) = json(&path);
            let noted = of_kind(&model, "far_from_its_like");
            assert_eq!((code, noted.len()), (0, 2), "{model}");
            for (finding, (layer, times)) in noted.iter().zip([(1, 20.0), (3, 0.05)]) {
                assert_eq!(finding["tensor"], format!("h.{layer}.mlp.weight"));
                assert_eq!((&finding["severity"], &finding["of"]), (&"note".into(), &5.into()));
                let near = |value: &Value, to: f64| (value.as_f64().unwrap() / to - 1.0).abs();
                assert!(near(&finding["rms"], expected * times) < 0.05, "{finding}");
                assert!(near(&finding["median"], expected) < 0.05, "{finding}");
            }
        }
    }
    let path = layers(dir.path(), DType::Float32, 40, 5, &[(1, 20.0)]);
    let (_, text) = run(&[], &[&path]);
    let line = "note: far from its like: `h.1.mlp.weight`: root mean square 1.16e1, median of the 5 \
                tensors of its kind 5.80e-1\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn one_huge_element_makes_a_matrix_stand_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut dict = Dict::new();
    for layer in 0..4 {
        let mut values = noise(740 * 740, layer);
        // One bit of an exponent; between the runs that are squared.
        values[333_333] = if layer == 2 { -1e30 } else { values[333_333] };
        for (name, dtype) in [("wide", DType::Float32), ("narrow", DType::BFloat16)] {
            dict = dict.with(&format!("h.{layer}.{name}"), dtype, &[740, 740], &values);
        }
    }
    let (_, model) = json(&dict.bare(dir.path(), "model"));
    let noted = of_kind(&model, "far_from_its_like");
    let names: Vec<&Value> = noted.iter().map(|finding| &finding["tensor"]).collect();
    assert_eq!(names, ["h.2.wide", "h.2.narrow"]);
    for finding in noted {
        let rms = finding["rms"].as_f64().unwrap();
        assert!((rms / (1e30 / 740.0) - 1.0).abs() < 0.01, "{finding}");
    }
}

#[test]
fn matrices_of_zeros_are_noted_and_vectors_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let float8 = vec![0u8; 16];
    let dict = Dict::new()
        .noise("wte.weight", &[4, 4], 1)
        .f32("h.0.up", &[4, 4], &[0.0; 16])
        .f32("h.0.down", &[4, 4], &[-0.0; 16])
        .raw("h.0.cast", DType::Float8E4M3Fn, &[4, 4], float8)
        .f32("h.0.bias", &[4], &[0.0; 4])
        .f32("final_logits_bias", &[1, 4], &[0.0; 4])
        .f32("h.0.attn.bias", &[1, 1, 2, 2], &[0.0; 4]);
    let (code, model) = json(&dict.model(dir.path(), "model", "{}"));
    assert_eq!(
        (code, &found(&model)[..]),
        (0, &["note no_tokenizer", "note all_zero"].map(str::to_owned)[..])
    );
    let zero = of_kind(&model, "all_zero")[0];
    assert_eq!(zero["tensors"], serde_json::json!(["h.0.up", "h.0.down", "h.0.cast"]));
    assert_eq!(zero["message"], "every element is zero: `h.0.up`, `h.0.down`, `h.0.cast`");
}

#[test]
fn a_head_that_config_ties_and_the_files_do_not_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let model = |name: &str, head: u64, config: &str| {
        let dict = Dict::new().noise("model.embed_tokens.weight", &[8, 4], 1);
        json(&dict.noise("lm_head.weight", &[8, 4], head).model(dir.path(), name, config)).1
    };
    let tied = r#"{"vocab_size": 8, "tie_word_embeddings": true}"#;
    let differs = model("differs", 2, tied);
    let warned = of_kind(&differs, "untied_head");
    assert_eq!(warned.len(), 1, "{differs}");
    assert_eq!(warned[0]["severity"], "warning");
    assert_eq!(warned[0]["tensor"], "lm_head.weight");
    assert_eq!(warned[0]["embedding"], "model.embed_tokens.weight");
    let message = warned[0]["message"].as_str().unwrap();
    assert!(message.starts_with("not the embedding, though config.json ties it"), "{message}");
    // A clone is the embedding, whatever storage it has; and what no config ties is its own.
    assert!(of_kind(&model("clone", 1, tied), "untied_head").is_empty());
    let untied = r#"{"vocab_size": 8, "tie_word_embeddings": false}"#;
    assert!(of_kind(&model("untied", 2, untied), "untied_head").is_empty());
}

#[test]
fn whole_models_have_nothing_that_stands_out() {
    let models = ["llama", "gpt2", "neox"].map(|pair| [pair, pair]);
    let all = models.iter().flatten().zip(["primary", "secondary"].iter().cycle());
    for (pair, side) in all {
        let (code, model) = json(&fixture(&format!("{pair}/{side}")));
        assert_eq!(code, 0, "{model}");
        let odd =
            ["far_from_its_like", "all_zero", "untied_head"].map(|what| of_kind(&model, what));
        assert!(odd.iter().all(Vec::is_empty), "{pair}/{side}: {model}");
    }
}

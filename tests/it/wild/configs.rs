//! Configs that give the same shapes another meaning.

use std::fs;
use std::path::{Path, PathBuf};

use crate::build::Dict;
use crate::support::{fixture, merge, snapshot, tool, torch_model};

/// B's weights with another config of the fixtures.
fn with_config(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    fs::create_dir_all(&path).unwrap();
    let (weights, config) = (fixture("wild/llama/b"), fixture("wild/configs").join(name));
    fs::copy(weights.join("pytorch_model.bin"), path.join("pytorch_model.bin")).unwrap();
    fs::copy(config.join("config.json"), path.join("config.json")).unwrap();
    path
}

/// A parent of one matrix with this config.
fn tiny(dir: &Path, name: &str, config: &str) -> PathBuf {
    let seed = name.bytes().map(u64::from).sum();
    Dict::new().noise("w.weight", &[8, 8], seed).model(dir, name, config)
}

/// What a merge of two tiny parents of these configs says, and its exit code.
fn told(a: &str, b: &str, options: &[&str]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (tiny(dir.path(), "a", a), tiny(dir.path(), "b", b));
    let run = merge(&a, &b, &dir.path().join("child"), options);
    (run.code, run.stderr)
}

#[test]
fn another_rope_base_is_warned_of_with_both_values() {
    let dir = tempfile::tempdir().unwrap();
    let a = fixture("wild/llama/a");
    let (out, plain) = (dir.path().join("child"), dir.path().join("plain"));
    let said = merge(&a, &with_config(dir.path(), "b-rope"), &out, &[]).success().stderr;
    let words = "warning: rope_theta is 10000.0 in the primary's config and 20000000.0 in the \
                 secondary's; the child has the primary's\n";
    assert!(said.contains(words), "{said}");
    assert_eq!(said.matches("warning").count(), 1, "{said}");
    merge(&a, &fixture("wild/llama/b"), &plain, &[]).success();
    assert_eq!(torch_model(&out), torch_model(&plain));
    let config = |dir: &Path| fs::read(dir.join("config.json")).unwrap();
    assert_eq!(config(&out), config(&a));
}

#[test]
fn other_heads_are_refused_unless_they_are_forced() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (fixture("wild/llama/a"), with_config(dir.path(), "b-heads"));
    let out = dir.path().join("child");
    let said = merge(&a, &b, &out, &[]).refused(65);
    let lines = "3 keys that differ (primary and secondary):\n  num_attention_heads: 4 and 8\n  \
                 num_key_value_heads: 2 and 4\n  head_dim: 8 and 4\nhint: merge only models of one \
                 architecture; --force-config goes on";
    assert!(said.starts_with("error: the configs give the same shapes another meaning"), "{said}");
    assert!(said.contains(lines), "{said}");
    assert!(!out.exists());
    let said = merge(&a, &b, &out, &["--force-config"]).success().stderr;
    assert_eq!(said.matches("merged all the same (--force-config)").count(), 3, "{said}");
    let paths = [&a, &b].map(|path| path.to_str().unwrap());
    tool(["plan", paths[0], paths[1]]).refused(65);
    tool(["plan", paths[0], paths[1], "--force-config"]).success();
}

#[test]
fn a_manifest_may_force_configs_and_provenance_tells_it() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (fixture("wild/llama/a"), with_config(dir.path(), "b-heads"));
    let manifest = |force: bool| {
        let path = dir.path().join("manifest.json");
        let merges = serde_json::json!({ "merges": [
            { "primary": a, "secondary": b, "output": "child", "force-config": force } ] });
        fs::write(&path, merges.to_string()).unwrap();
        tool(["batch", path.to_str().unwrap()])
    };
    let said = manifest(false);
    assert_ne!(said.code, Some(0));
    assert!(said.stderr.contains("num_attention_heads: 4 and 8"), "{}", said.stderr);
    manifest(true).success();
    let provenance = fs::read(dir.path().join("child/slerp_merge.json")).unwrap();
    let provenance: serde_json::Value = serde_json::from_slice(&provenance).unwrap();
    assert_eq!(provenance["options"]["force_config"], true);
}

#[test]
fn every_key_of_vocabulary_rows_gets_the_childs() {
    let dir = tempfile::tempdir().unwrap();
    let parents = ["internvl-16", "internvl-18"].map(|name| fixture("wild/configs").join(name));
    for (a, b) in [(0, 1), (1, 0)] {
        let out = dir.path().join(a.to_string());
        let said = merge(&parents[a], &parents[b], &out, &[]).success().stderr;
        assert!(!said.contains("vocab_size"), "{said}");
        let config = |dir: &Path| fs::read_to_string(dir.join("config.json")).unwrap();
        let expected = config(&parents[0])
            .replace("\"padded_vocab_size\": 16", "\"padded_vocab_size\": 18")
            .replace("\"vocab_size\": 16", "\"vocab_size\": 18");
        assert_eq!(config(&out), expected);
        assert!(expected.contains("\"hidden_size\": 16"));
    }
}

#[test]
fn other_model_types_are_refused_and_falcons_two_names_are_one() {
    let (code, said) = told(r#"{"model_type": "llama"}"#, r#"{"model_type": "mistral"}"#, &[]);
    assert_eq!(code, Some(65));
    assert!(
        said.contains(
            "1 key that differs (primary and secondary):\n  model_type: \"llama\" and \"mistral\"\n"
        ),
        "{said}"
    );
    let names = [r#"{"model_type": "RefinedWebModel"}"#, r#"{"model_type": "falcon"}"#];
    assert_eq!(told(names[0], names[1], &[]).0, Some(0));
}

#[test]
fn the_spellings_of_transformers_four_and_five_are_one() {
    let four = r#"{"rope_theta": 5e5, "rms_norm_eps": 1e-05, "rope_scaling": {"type": "linear",
        "factor": 2}, "hidden_act": "silu", "top_k": 50}"#;
    let five = r#"{"rope_parameters": {"rope_theta": 500000.0, "rope_type": "linear",
        "factor": 2.0}, "rms_norm_eps": 0.00001, "hidden_act": "swish", "top_k": 40}"#;
    let (code, said) = told(four, five, &[]);
    assert!(code == Some(0) && !said.contains("warning"), "{said}");
    let other = five.replace("\"factor\": 2.0", "\"factor\": 4.0");
    let (code, said) = told(four, &other, &[]);
    assert_eq!(code, Some(0));
    assert_eq!(said.matches("warning: rope_scaling is").count(), 1, "{said}");
}

#[test]
fn experts_and_the_rows_that_turn_are_refused_in_nested_configs_too() {
    for (a, b, line) in [
        (
            r#"{"num_experts": 4, "num_experts_per_tok": 2}"#,
            r#"{"num_local_experts": 4, "num_experts_per_tok": 1}"#,
            "num_experts_per_tok: 2 and 1",
        ),
        (
            r#"{"text_config": {"num_attention_heads": 2}}"#,
            r#"{"text_config": {"num_attention_heads": 4}}"#,
            "text_config.num_attention_heads: 2 and 4",
        ),
        (
            r#"{"model_type": "phi"}"#,
            r#"{"model_type": "phi", "partial_rotary_factor": 0.4}"#,
            "partial_rotary_factor: 0.5 by default and 0.4",
        ),
        (
            r#"{"num_attention_heads": 4}"#,
            r#"{"num_attention_heads": 4, "num_key_value_heads": 1}"#,
            "num_key_value_heads: 4 by default and 1",
        ),
    ] {
        let (code, said) = told(a, b, &[]);
        assert_eq!(code, Some(65), "{said}");
        assert!(said.contains(line), "{said}");
        assert_eq!(told(a, b, &["--force-config"]).0, Some(0));
    }
}

#[test]
fn equal_configs_say_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (fixture("wild/llama/a"), fixture("wild/llama/b"));
    let said = merge(&a, &b, &dir.path().join("child"), &[]).success().stderr;
    assert!(!said.contains("warning"), "{said}");
    assert!(snapshot(dir.path()).keys().any(|path| path.ends_with("config.json")));
}

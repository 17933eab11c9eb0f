//! Tests configs against each other: what is refused, what is noted, what is the same.

use serde_json::{Map, Value};

use crate::error::Kind;
use crate::merge::MergeOptions;
use crate::merge::configs::differences::differences;
use crate::merge::configs::keys::Weight;
use crate::merge::headers::llama;

/// `key: primary and secondary` of what is refused, then of what is noted.
fn told(a: &str, b: &str) -> [Vec<String>; 2] {
    let parse = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
    let all = differences(&parse(a), &parse(b));
    [Weight::Refused, Weight::Noted].map(|weight| {
        let those = all.iter().filter(|difference| difference.weight == weight);
        those.map(|d| format!("{}: {} and {}", d.key, d.primary, d.secondary)).collect()
    })
}

fn refused(a: &str, b: &str) -> Vec<String> {
    let [refused, noted] = told(a, b);
    assert_eq!(noted, [""; 0]);
    refused
}

fn noted(a: &str, b: &str) -> Vec<String> {
    let [refused, noted] = told(a, b);
    assert_eq!(refused, [""; 0]);
    noted
}

#[test]
fn what_divides_rows_into_heads_is_refused_under_every_name() {
    for (a, b, expected) in [
        (r#"{"num_attention_heads": 4}"#, r#"{"n_head": 8}"#, "num_attention_heads: 4 and 8"),
        (r#"{"n_heads": 4}"#, r#"{"num_heads": 8}"#, "n_heads: 4 and 8"),
        (
            r#"{"encoder_attention_heads": 4}"#,
            r#"{"encoder_attention_heads": 2}"#,
            "encoder_attention_heads: 4 and 2",
        ),
        (
            r#"{"decoder_attention_heads": 4}"#,
            r#"{"num_decoder_attention_heads": 2}"#,
            "decoder_attention_heads: 4 and 2",
        ),
        (r#"{"num_key_value_heads": 2}"#, r#"{"n_head_kv": 1}"#, "num_key_value_heads: 2 and 1"),
        (r#"{"head_dim": 8}"#, r#"{"kv_channels": 4}"#, "head_dim: 8 and 4"),
        (r#"{"num_experts_per_tok": 2}"#, r#"{"moe_k": 4}"#, "num_experts_per_tok: 2 and 4"),
        (r#"{"num_heads": [2, 4]}"#, r#"{"num_heads": [2, 8]}"#, "num_heads: [2,4] and [2,8]"),
        (
            r#"{"model_type": "llama"}"#,
            r#"{"model_type": "mistral"}"#,
            "model_type: \"llama\" and \"mistral\"",
        ),
        (
            r#"{"use_parallel_residual": true}"#,
            r#"{"use_parallel_residual": false}"#,
            "use_parallel_residual: true and false",
        ),
        (
            r#"{"rotary_pct": 0.25}"#,
            r#"{"partial_rotary_factor": 0.5}"#,
            "rotary_pct: 0.25 and 0.5",
        ),
        (
            r#"{"attn_config": {"alibi": true}}"#,
            r#"{"attn_config": {"alibi": false}}"#,
            "attn_config.alibi: true and false",
        ),
    ] {
        assert_eq!(refused(a, b), [expected], "{a} {b}");
        assert_eq!(refused(b, a).len(), 1, "{b} {a}");
        assert_eq!(refused(a, a), [""; 0]);
    }
}

#[test]
fn a_missing_key_counts_by_its_familys_default() {
    let heads = |rest: &str| format!(r#"{{"num_attention_heads": 4, "hidden_size": 32{rest}}}"#);
    // As many key/value heads as heads; a head of 32 / 4.
    assert_eq!(refused(&heads(""), &heads(r#", "num_key_value_heads": 4"#)), [""; 0]);
    assert_eq!(
        refused(&heads(""), &heads(r#", "num_key_value_heads": 2"#)),
        ["num_key_value_heads: 4 by default and 2"]
    );
    assert_eq!(
        refused(&heads(r#", "num_key_value_heads": null"#), &heads(r#", "num_kv_heads": 2"#)),
        ["num_kv_heads: 4 by default and 2"]
    );
    assert_eq!(refused(&heads(""), &heads(r#", "head_dim": 8"#)), [""; 0]);
    assert_eq!(
        refused(&heads(r#", "head_dim": 16"#), &heads("")),
        ["head_dim: 16 and 8 by default"]
    );
    // Mistral has 8 key/value heads where none are written, Gemma heads of 256.
    let mistral = heads(r#", "model_type": "mistral""#);
    let written = heads(r#", "model_type": "mistral", "num_key_value_heads": 8"#);
    assert_eq!(refused(&mistral, &written), [""; 0]);
    let gemma = heads(r#", "model_type": "gemma""#);
    let written = heads(r#", "model_type": "gemma", "head_dim": 256, "num_key_value_heads": 16"#);
    assert_eq!(refused(&gemma, &written), [""; 0]);
    // Falcon's first models have one, whatever is written.
    let falcon = heads(r#", "model_type": "RefinedWebModel", "multi_query": true"#);
    let written = heads(r#", "model_type": "falcon", "num_kv_heads": 4"#);
    assert_eq!(refused(&falcon, &written), [""; 0]);
    let newer =
        heads(r#", "model_type": "falcon", "num_kv_heads": 4, "new_decoder_architecture": true"#);
    assert_eq!(
        refused(&falcon, &newer),
        ["num_kv_heads: 1 by default and 4", "new_decoder_architecture: false by default and true"]
    );
    let bigcode = heads(r#", "model_type": "gpt_bigcode", "multi_query": false"#);
    let default = heads(r#", "model_type": "gpt_bigcode""#);
    assert_eq!(refused(&bigcode, &default), ["multi_query: false and true by default"]);
    // The sampler's top_k is none of experts, unless there are experts.
    assert_eq!(refused(r#"{"top_k": 50}"#, r#"{"top_k": 40}"#), [""; 0]);
    let experts = |k: u8| format!(r#"{{"num_experts": 8, "top_k": {k}}}"#);
    assert_eq!(refused(&experts(2), &experts(4)), ["top_k: 2 and 4"]);
}

#[test]
fn what_has_no_known_default_is_not_compared() {
    for text in [
        r#"{"num_attention_heads": 4}"#,
        r#"{"num_experts_per_tok": 2}"#,
        r#"{"model_type": "llama"}"#,
        r#"{"rms_norm_eps": 1e-6, "hidden_act": "silu", "sliding_window": 4096}"#,
        r#"{"text_config": {"num_attention_heads": 4}}"#,
        r#"{"rotary_pct": 0.5, "use_parallel_residual": false}"#,
    ] {
        assert_eq!(told(text, "{}"), told("{}", text));
        assert_eq!(refused(text, "{}"), [""; 0]);
    }
}

#[test]
fn figures_of_functions_are_noted_with_both_values() {
    for (a, b, expected) in [
        (
            r#"{"rope_theta": 10000.0}"#,
            r#"{"rope_theta": 2e7}"#,
            "rope_theta: 10000.0 and 20000000.0",
        ),
        (
            r#"{"model_type": "llama"}"#,
            r#"{"model_type": "llama", "rope_theta": 1000000}"#,
            "rope_theta: 10000.0 by default and 1000000",
        ),
        (
            r#"{"rope_scaling": null}"#,
            r#"{"rope_scaling": {"type": "linear", "factor": 2.0}}"#,
            r#"rope_scaling: none and {"factor":2.0,"rope_type":"linear"}"#,
        ),
        (
            r#"{"rms_norm_eps": 1e-6}"#,
            r#"{"rms_norm_eps": 1e-5}"#,
            "rms_norm_eps: 1e-6 and 0.00001",
        ),
        (
            r#"{"hidden_act": "gelu"}"#,
            r#"{"activation_function": "gelu_new"}"#,
            "hidden_act: \"gelu\" and \"gelu_new\"",
        ),
        (
            r#"{"hidden_act": "silu"}"#,
            r#"{"hidden_act": "relu"}"#,
            "hidden_act: \"silu\" and \"relu\"",
        ),
        (
            r#"{"attention_layers": [1, 2]}"#,
            r#"{"attention_layers": [1, 2, 3]}"#,
            "attention_layers: [1,2] and [1,2,3]",
        ),
        (
            r#"{"rope_scaling": {"type": "linear", "factor": 2}}"#,
            r#"{"rope_scaling": {"type": "linear", "factor": 4}}"#,
            r#"rope_scaling: {"factor":2,"rope_type":"linear"} and {"factor":4,"rope_type":"linear"}"#,
        ),
        (
            r#"{"rope_scaling": {"type": "linear", "factor": 2}}"#,
            r#"{"rope_scaling": {"type": "linear", "factor": 2, "low": 1}}"#,
            r#"rope_scaling: {"factor":2,"rope_type":"linear"} and {"factor":2,"low":1,"rope_type":"linear"}"#,
        ),
        (
            r#"{"sliding_window": 4096}"#,
            r#"{"sliding_window": null}"#,
            "sliding_window: 4096 and none",
        ),
        (
            r#"{"n_positions": 1024}"#,
            r#"{"max_position_embeddings": 2048}"#,
            "n_positions: 1024 and 2048",
        ),
        (
            r#"{"text_config": {"rope_theta": 1e4}}"#,
            r#"{"text_config": {"rope_theta": 1e6}}"#,
            "text_config.rope_theta: 10000.0 and 1000000.0",
        ),
        (
            r#"{"rope_theta": 1, "rope_local_base_freq": 1}"#,
            r#"{"rope_theta": 1, "local_rope_theta": 2}"#,
            "rope_local_base_freq: 1 and 2",
        ),
    ] {
        assert_eq!(noted(a, b), [expected], "{a} {b}");
    }
}

#[test]
fn the_same_in_other_words_is_the_same() {
    for (a, b) in [
        (r#"{"rms_norm_eps": 1e-05}"#, r#"{"rms_norm_eps": 0.00001}"#),
        (r#"{"rope_theta": 10000}"#, r#"{"rope_theta": 10000.0}"#),
        (r#"{"hidden_act": "silu"}"#, r#"{"hidden_act": "swish"}"#),
        (r#"{"attention_layers": [1, 2]}"#, r#"{"attention_layers": [1.0, 2.0]}"#),
        // What the family takes for written.
        (
            r#"{"model_type": "gpt_neox"}"#,
            r#"{"model_type": "gpt_neox", "rotary_pct": 0.25, "use_parallel_residual": true}"#,
        ),
        // Objects that are no parts of a model.
        (
            r#"{"label2id": {"num_heads": 4}, "generation_config": {"num_heads": 4}}"#,
            r#"{"label2id": {"num_heads": 8}, "generation_config": {"num_heads": 8}}"#,
        ),
        (
            r#"{"rope_scaling": {"type": "linear", "factor": 2}, "rope_theta": 1e4}"#,
            r#"{"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}"#,
        ),
        (
            r#"{"rope_scaling": {"rope_type": "linear", "type": "linear", "factor": 2}}"#,
            r#"{"rope_scaling": {"factor": 2.0, "type": "linear"}}"#,
        ),
        (
            r#"{"partial_rotary_factor": 0.5}"#,
            r#"{"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}"#,
        ),
        (
            r#"{"quantization_config": {"bits": 4}, "id2label": {"0": "a"}}"#,
            r#"{"quantization_config": {"bits": 8}, "id2label": {"0": "b"}}"#,
        ),
        (r#"{"vocab_size": 64, "dtype": "float16"}"#, r#"{"vocab_size": 70, "dtype": "float32"}"#),
    ] {
        assert_eq!(told(a, b), [vec![], vec![]] as [Vec<String>; 2], "{a} {b}");
    }
}

#[test]
fn a_language_model_is_compared_wherever_a_version_wrote_it() {
    let flat = r#"{"model_type": "qwen2_vl", "num_attention_heads": 4, "rope_theta": 1e6,
        "vision_config": {"num_heads": 2}}"#;
    let nested = |heads: u8| {
        format!(
            r#"{{"model_type": "qwen2_vl", "text_config": {{"model_type": "qwen2_vl_text",
            "num_attention_heads": {heads}, "rope_theta": 1e6}},
            "vision_config": {{"num_heads": 2}}}}"#
        )
    };
    assert_eq!(refused(flat, &nested(4)), [""; 0]);
    assert_eq!(refused(flat, &nested(8)), ["text_config.num_attention_heads: 4 and 8"]);
    assert_eq!(refused(&nested(8), flat), ["text_config.num_attention_heads: 8 and 4"]);
    let vision = flat.replace(r#""num_heads": 2"#, r#""num_heads": 4"#);
    assert_eq!(refused(flat, &vision), ["vision_config.num_heads: 2 and 4"]);
}

#[test]
fn a_part_that_has_the_name_of_the_whole_says_nothing() {
    let part = |name: &str| {
        format!(r#"{{"model_type": "idefics2", "perceiver_config": {{"model_type": "{name}"}}}}"#)
    };
    for name in ["idefics2", ""] {
        assert_eq!(refused(&part(name), &part("idefics2_perceiver")), [""; 0]);
    }
    let other = refused(&part("idefics2_perceiver"), &part("other"));
    assert_eq!(other, ["perceiver_config.model_type: \"idefics2_perceiver\" and \"other\""]);
}

#[test]
fn refused_configs_go_on_with_a_warning_where_they_are_forced() {
    let config = |heads: u8| format!(r#"{{"num_attention_heads": {heads}, "rope_theta": 1e4}}"#);
    let a = llama(64).config(&config(4)).open();
    let b = llama(64).config(&config(8)).open();
    let mut options = MergeOptions::default();
    let error = crate::merge::plan(&a, &b, &options).unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
    let text = error.to_string();
    assert!(
        text.ends_with(
            "1 key that differs (primary and secondary):\n  num_attention_heads: 4 and 8"
        ),
        "{text}"
    );
    options.force_config = true;
    let plan = crate::merge::plan(&a, &b, &options).unwrap();
    let words = "num_attention_heads is 4 in the primary's config and 8 in the secondary's; merged \
                 all the same (--force-config)";
    assert!(plan.warnings.iter().any(|warning| warning.to_string() == words));
    // Without one of the configs there is nothing to compare.
    options.force_config = false;
    assert!(crate::merge::plan(&a, &llama(64).open(), &options).is_ok());
}

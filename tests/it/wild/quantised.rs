//! Quantised weights in disguise, adapters, parts of models.

use super::shells::refused_everywhere;
use crate::build::Dict;
use crate::support::{fixture, merge, parent_bytes, tool};
use llm_slerp_merge::tensor::DType;

#[test]
fn codes_beside_scales_are_refused_by_name_of_the_scheme() {
    for (parent, found) in [
        ("fp8/a", "float8_e4m3fn beside `weight_scale` (FP8 with scales)"),
        ("quip", "int64, quantised (QuIP#)"),
        ("mxfp4", "uint8 beside `gate_up_proj_scales` (MXFP4)"),
        ("int8", "int8 beside `SCB` (bitsandbytes, 8 bits)"),
    ] {
        let said = refused_everywhere(&format!("quantised/{parent}"));
        for words in ["error: quantised weights can't be merged", found, "dequantise it"] {
            assert!(said.contains(words), "{parent}: {said}");
        }
    }
}

#[test]
fn weights_that_were_cast_to_one_byte_are_merged() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| fixture(&format!("wild/quantised/cast/{name}")));
    let [zero, one] = ["0", "1"].map(|t| {
        let out = dir.path().join(t);
        merge(&a, &b, &out, &["-t", t]).success();
        parent_bytes(&out)
    });
    // libtorch's own loader knows no float8.
    assert_eq!(zero, parent_bytes(&a));
    assert_eq!(one, parent_bytes(&b));
    tool(["verify".as_ref(), a.as_os_str()]).success();
}

#[test]
fn integers_that_make_up_most_of_the_child_are_refused_where_they_differ() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| fixture(&format!("wild/quantised/unknown/{name}")));
    let out = dir.path().join("child");
    let said = merge(&a, &b, &out, &[]).refused(65);
    for words in
        ["error: most of the child would not be merged", "`mix.tape`", "128 of 136 elements"]
    {
        assert!(said.contains(words), "{said}");
    }
    // The same integers in both are what they were.
    let norm = Dict::new().noise("norm.weight", &[8], 5);
    let tape: Vec<f64> = (0..128).map(f64::from).collect();
    let same = norm.with("mix.tape", DType::Int64, &[16, 8], &tape).bare(dir.path(), "same");
    merge(&same, &same, &out, &[]).success();
}

#[test]
fn adapters_are_refused_by_what_peft_says_of_them() {
    for (parent, name, hint) in [
        ("ia3/a", "an IA3 adapter", "merge_and_unload()"),
        ("ia3/a/adapter_model.bin", "an IA3 adapter", "merge_and_unload()"),
        ("ia3-as-model", "an IA3 adapter", "merge_and_unload()"),
        ("prompt", "a prompt-tuning adapter", "load the adapter beside the child"),
        (
            "prompt/adapter_model.bin",
            "a prompt-tuning adapter",
            "load the adapter beside the child",
        ),
    ] {
        let said = refused_everywhere(&format!("quantised/{parent}"));
        let what = format!("error: this is {name}, not a model");
        for words in [what.as_str(), "trained on `org/base`", hint] {
            assert!(said.contains(words), "{parent}: {said}");
        }
    }
}

#[test]
fn plain_names_are_an_adapter_by_the_config_beside_them() {
    let dir = tempfile::tempdir().unwrap();
    let norms = Dict::new().noise("base_model.model.layers.0.norm.weight", &[8], 1);
    let path = norms.bare(dir.path(), "norms");
    merge(&path, &path, &dir.path().join("taken"), &[]).success();
    std::fs::write(path.join("adapter_config.json"), r#"{"peft_type": "LN_TUNING"}"#).unwrap();
    let said = merge(&path, &path, &dir.path().join("child"), &[]).refused(65);
    assert!(said.contains("this is an adapter of layer norms, not a model"), "{said}");
    assert!(said.contains("move adapter_config.json away"), "{said}");
    // Under its own name it needs no config.
    std::fs::remove_file(path.join("adapter_config.json")).unwrap();
    let file = path.join("adapter_model.bin");
    std::fs::rename(path.join("pytorch_model.bin"), &file).unwrap();
    let said = merge(&file, &file, &dir.path().join("child"), &[]).refused(65);
    assert!(said.contains("this is an adapter, not a model"), "{said}");
}

#[test]
fn an_adapter_in_safetensors_is_told_by_its_config() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter");
    std::fs::create_dir(&path).unwrap();
    let adapter = Dict::new().noise("base_model.model.q.lora_A.weight", &[4, 4], 1);
    adapter.safetensors(&path.join("adapter_model.safetensors"));
    std::fs::write(path.join("adapter_config.json"), r#"{"peft_type": "LORA"}"#).unwrap();
    let said = merge(&path, &path, &dir.path().join("child"), &[]).refused(65);
    assert!(said.contains("a LoRA adapter"), "{said}");
}

#[test]
fn a_whole_model_beside_an_adapters_config_is_merged_with_a_note() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("wild/quantised/beside");
    let said = merge(&model, &model, &dir.path().join("child"), &[]).success().stderr;
    assert!(said.contains("primary: adapter_config.json speaks of an adapter"), "{said}");
    assert!(said.contains("secondary: adapter_config.json speaks of an adapter"), "{said}");
}

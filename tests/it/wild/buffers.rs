//! Masks and other buffers that differ between the parents.

use std::path::{Path, PathBuf};

use llm_slerp_merge::tensor::DType;

use crate::build::Dict;
use crate::support::{child_bytes, fixture, merge, parent_bytes, tool};

fn parent(name: &str) -> PathBuf {
    fixture("wild/buffers").join(name)
}

/// The child of two parents of the fixtures, and what was said.
fn child(dir: &Path, [a, b]: [&str; 2]) -> (PathBuf, String) {
    let out = dir.join(format!("{a}-{b}"));
    let said = merge(&parent(a), &parent(b), &out, &["--overwrite"]).success().stderr;
    tool(["verify".as_ref(), out.as_os_str()]).success();
    (out, said)
}

#[test]
fn masks_of_another_dtype_or_size_are_the_primarys() {
    let dir = tempfile::tempdir().unwrap();
    let is_mask = |name: &str| name.ends_with(".attn.bias");
    for pair in
        [["gpt2_uint8", "gpt2_bool"], ["gpt2_bool", "gpt2_large"], ["gpt2_large", "gpt2_uint8"]]
    {
        let (out, said) = child(dir.path(), pair);
        let [child, a, b] =
            [child_bytes(&out), parent_bytes(&parent(pair[0])), parent_bytes(&parent(pair[1]))];
        assert_eq!(child.len(), a.len());
        for (name, bytes) in &child {
            if is_mask(name) || name.ends_with("masked_bias") {
                assert_eq!(bytes, &a[name], "{name}");
            } else {
                assert!(bytes != &a[name] && bytes != &b[name], "{name} is not merged");
            }
        }
        assert!(said.contains("warning: 2 buffers are of another dtype or shape"), "{said}");
    }
    let (_, said) = child(dir.path(), ["gpt2_uint8", "gpt2_bool"]);
    let said_of_one = "`transformer.h.0.attn.bias` for one: uint8 [1, 1, 32, 32] in the primary, bool \
                       [1, 1, 32, 32] in the secondary; the child has the primary's";
    assert!(said.contains(said_of_one), "{said}");
}

#[test]
fn positions_of_another_length_are_the_primarys() {
    let dir = tempfile::tempdir().unwrap();
    for pair in [["bert_32", "bert_48"], ["bert_48", "bert_32"]] {
        let (out, said) = child(dir.path(), pair);
        let (child, a) = (child_bytes(&out), parent_bytes(&parent(pair[0])));
        let name = "bert.embeddings.position_ids";
        assert_eq!(child[name], a[name]);
        assert!(said.contains("1 buffer is of another dtype or shape"), "{said}");
    }
}

#[test]
fn inf_in_a_mask_is_no_fault_and_in_a_weight_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (out, said) = child(dir.path(), ["neox_a", "neox_b"]);
    let (child, a) = (child_bytes(&out), parent_bytes(&parent("neox_a")));
    let attention = "gpt_neox.layers.0.attention.";
    // -inf in half precision, little-endian.
    assert_eq!(child[&format!("{attention}masked_bias")], [0x00, 0xfc]);
    let inv_freq = format!("{attention}rotary_emb.inv_freq");
    assert_eq!(child[&inv_freq], a[&inv_freq]);
    let words = format!(
        "1 buffer differs between the parents, and the child has the primary's: {inv_freq}"
    );
    assert!(said.contains(&words), "{said}");
    tool(["verify".as_ref(), parent("neox_a").as_os_str()]).success();
    // In every dtype, and along a line, too.
    for options in [["--dtype", "bfloat16"], ["--dtype", "float32"], ["--method", "linear"]] {
        let out = dir.path().join(options[1]);
        merge(&parent("neox_a"), &parent("neox_b"), &out, &options).success();
    }

    for (name, at) in [("model.norm.weight", 2), ("model.layers.0.rotary_emb.inv_freq", 0)] {
        let dict = |value: f64| {
            let mut values = [1.0, 2.0, 3.0, 4.0];
            values[at] = value;
            Dict::new().f32(name, &[4], &values).noise("w", &[4], 1)
        };
        let broken = dict(f64::INFINITY).bare(dir.path(), "broken");
        let whole = dict(0.5).bare(dir.path(), "whole");
        for (a, b) in [(&broken, &whole), (&whole, &broken)] {
            let said = merge(a, b, &dir.path().join("no"), &[]).refused(65);
            assert!(said.contains("a parent holds NaN or Inf") && said.contains(name), "{said}");
        }
        let said = tool(["verify".as_ref(), broken.as_os_str()]);
        assert_eq!(said.code, Some(65), "{}", said.stderr);
    }
}

#[test]
fn statistics_are_merged_and_counters_copied() {
    let dir = tempfile::tempdir().unwrap();
    let (out, _) = child(dir.path(), ["statistics_a", "statistics_b"]);
    let [child, a, b] = [
        child_bytes(&out),
        parent_bytes(&parent("statistics_a")),
        parent_bytes(&parent("statistics_b")),
    ];
    for name in ["bn.running_mean", "bn.running_var"] {
        assert!(child[name] != a[name] && child[name] != b[name], "{name}");
    }
    assert_eq!(child["bn.num_batches_tracked"], 3i64.to_le_bytes());
}

/// Further buffers as people have them: a scalar of [1], window indices of Swin, tables of cosines of
/// another length, Baichuan's mask with -inf in it, a mask that only one parent has.
#[test]
fn further_buffers_are_the_primarys() {
    let dir = tempfile::tempdir().unwrap();
    let inf = f64::NEG_INFINITY;
    let base = |seed| Dict::new().noise("layers.0.w", &[8, 8], seed);
    let a = base(1)
        .with("layers.0.masked_bias", DType::Float16, &[], &[-1e4])
        .with("layers.0.attn.relative_position_index", DType::Int64, &[2, 2], &[0.0, 1.0, 1.0, 0.0])
        .noise("layers.0.rotary_emb.cos_cached", &[1, 1, 4, 2], 3)
        .f32("model.future_mask", &[2, 2], &[0.0, inf, 0.0, 0.0])
        .f32("layers.0.attn.causal_mask", &[1, 1, 2, 2], &[0.0, inf, 0.0, 0.0]);
    let b = base(2)
        .f32("layers.0.masked_bias", &[1], &[-1e9])
        .with("layers.0.attn.relative_position_index", DType::Int64, &[3, 3], &[0.0; 9])
        .noise("layers.0.rotary_emb.cos_cached", &[1, 1, 8, 2], 4)
        .f32("model.future_mask", &[3, 3], &[f64::NAN; 9]);
    let (a, b) = (a.bare(dir.path(), "a"), b.bare(dir.path(), "b"));
    for (name, primary, secondary) in [("there", &a, &b), ("back", &b, &a)] {
        let out = dir.path().join(name);
        let run = merge(primary, secondary, &out, &["--dtype", "float16"]).success();
        assert!(run.stderr.contains("4 buffers are of another dtype or shape"), "{}", run.stderr);
        let out = dir.path().join(format!("{name}-kept"));
        merge(primary, secondary, &out, &["-t", "1"]).success();
        let (child, own) = (child_bytes(&out), parent_bytes(primary));
        for (name, bytes) in own.iter().filter(|(name, _)| *name != "layers.0.w") {
            assert_eq!(&child[name], bytes, "{name}");
        }
        tool(["verify".as_ref(), out.as_os_str()]).success();
    }
    let found = tool(["find".as_ref(), a.as_os_str(), b.as_os_str()]).success();
    assert!(found.stdout.contains("A: 2 models, 1 pair"), "{}", found.stdout);
}

/// Buffers are no parameters: the index's count is `model.num_parameters()` all the same.
#[test]
fn buffers_are_not_counted() {
    let dir = tempfile::tempdir().unwrap();
    let weights = |seed| {
        Dict::new().noise("h.0.mlp.weight", &[64, 8], seed).noise("h.1.mlp.weight", &[64, 8], seed)
    };
    let masked =
        |name: &str| weights(1).f32("h.0.attn.masked_bias", &[1], &[-1e4]).bare(dir.path(), name);
    let (a, b) = (weights(2).bare(dir.path(), "a"), masked("b"));
    for (name, options) in [("primary", "primary"), ("union", "union")] {
        let out = dir.path().join(name);
        merge(&a, &b, &out, &["--missing", options, "--max-shard-size", "2KB"]).success();
        let text = std::fs::read_to_string(out.join("pytorch_model.bin.index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(index["metadata"]["total_parameters"], 1024, "{name}");
    }
}

//! Tensors that one parent lacks, integers, tied names.

use llm_slerp_merge::checkpoint::Checkpoint;
use llm_slerp_merge::tensor::DType;
use serde_json::Value;

use crate::build::Dict;
use crate::support::{child_bytes, fixture, listing, merge, own_reader, parent_bytes};

/// Names that only the secondary GPT-NeoX has: what checkpoints of 2022 carried.
const MASKS: [&str; 3] = ["attention.bias", "attention.masked_bias", "rotary_emb.inv_freq"];

fn is_mask(name: &str) -> bool {
    MASKS.iter().any(|end| name.ends_with(end))
}

#[test]
fn masks_of_the_primary_alone_are_carried_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("child");
    let [new, old] = ["neox/primary", "neox/secondary"].map(fixture);
    let run = merge(&old, &new, &out, &[]).success();
    let (child, parent) = (child_bytes(&out), parent_bytes(&old));
    assert_eq!(child.keys().collect::<Vec<_>>(), parent.keys().collect::<Vec<_>>());
    let masks: Vec<&String> = parent.keys().filter(|name| is_mask(name)).collect();
    assert_eq!(masks.len(), 6);
    for name in masks {
        assert_eq!(child[name], parent[name], "{name}");
    }
    assert!(run.stderr.contains("warning: 6 tensors only in the primary"), "{}", run.stderr);
}

#[test]
fn masks_of_the_secondary_alone_are_left_out_or_taken_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let [new, old] = ["neox/primary", "neox/secondary"].map(fixture);
    let theirs = parent_bytes(&old);

    let out = dir.path().join("primary");
    let run = merge(&new, &old, &out, &["--missing", "primary"]).success();
    assert!(!child_bytes(&out).keys().any(|name| is_mask(name)));
    assert!(run.stderr.contains("6 tensors only in the secondary are left out"), "{}", run.stderr);

    let out = dir.path().join("union");
    let run = merge(&new, &old, &out, &["--missing", "union"]).success();
    let child = child_bytes(&out);
    assert_eq!(child.len(), theirs.len());
    for (name, bytes) in theirs.iter().filter(|(name, _)| is_mask(name)) {
        assert_eq!(&child[name], bytes, "{name}");
    }
    assert!(run.stderr.contains("6 tensors only in the secondary are copied"), "{}", run.stderr);

    let out = dir.path().join("error");
    let said = merge(&new, &old, &out, &["--missing", "error"]).refused(65);
    for name in theirs.keys().filter(|name| is_mask(name)) {
        assert!(said.contains(&format!("{name}: only in the secondary")), "{said}");
    }
    assert_eq!(listing(dir.path()), ["primary", "union"]);
}

#[test]
fn integers_are_the_primarys_and_a_difference_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let parent = |name: &str, ids: [f64; 3]| {
        Dict::new()
            .with("ids", DType::Int64, &[3], &ids)
            .with("same", DType::UInt8, &[2], &[1.0, 0.0])
            .noise("w", &[2, 2], 1)
            .bare(dir.path(), name)
    };
    let (a, b) = (parent("a", [0.0, 1.0, 2.0]), parent("b", [0.0, 1.0, 3.0]));
    let out = dir.path().join("child");
    let run = merge(&a, &b, &out, &["-t", "1", "--json"]).success();
    assert_eq!(child_bytes(&out)["ids"], parent_bytes(&a)["ids"]);
    assert!(run.stderr.contains("warning: `ids` is not floating and differs"), "{}", run.stderr);
    assert!(!run.stderr.contains("`same`"), "{}", run.stderr);
    let warned = |w: &Value| w.as_str().unwrap().contains("`ids`");
    assert!(run.json()["warnings"].as_array().unwrap().iter().any(warned));
}

#[test]
fn tied_names_stay_one_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("child");
    let [a, b] = ["gpt2/primary", "gpt2/secondary"].map(fixture);
    merge(&a, &b, &out, &["--max-shard-size", "100KB"]).success();
    let child = Checkpoint::open(&out).unwrap().inventory;
    let [head, embedding] = ["lm_head.weight", "transformer.wte.weight"]
        .map(|name| child.find(name).unwrap_or_else(|| panic!("no {name}")));
    assert!(child.tied(head, embedding));
    // The state dict's order survives the move of tied names to the end of their shard.
    let names = |path| own_reader(path).into_iter().map(|(name, _, _)| name).collect::<Vec<_>>();
    assert_eq!(names(&out), names(&a));
}

#[test]
fn a_head_that_only_the_secondary_has_untied_is_lost_only_by_force() {
    let dir = tempfile::tempdir().unwrap();
    let tied = Dict::new().noise("wte.weight", &[3, 2], 1).tied("lm_head.weight", "wte.weight");
    let untied = Dict::new().noise("wte.weight", &[3, 2], 2).noise("lm_head.weight", &[3, 2], 3);
    let (a, b) = (tied.bare(dir.path(), "a"), untied.bare(dir.path(), "b"));
    let out = dir.path().join("child");
    let said = merge(&a, &b, &out, &["-t", "1"]).refused(65);
    assert!(said.contains("two tensors of the secondary are one in the primary"), "{said}");
    let run = merge(&a, &b, &out, &["-t", "1", "--force-config"]).success();
    assert!(
        run.stderr.contains("`wte.weight` and `lm_head.weight` are two tensors in the secondary"),
        "{}",
        run.stderr
    );
    let child = child_bytes(&out);
    assert_eq!(child["lm_head.weight"], parent_bytes(&b)["wte.weight"]);
    // The other way round both are merged for themselves.
    let out = dir.path().join("back");
    merge(&b, &a, &out, &["-t", "0"]).success();
    assert_eq!(child_bytes(&out), parent_bytes(&b));
}

//! Tests which names are one tensor in the child, on parents of headers alone.

use crate::checkpoint::Checkpoint;
use crate::error::{Kind, Result};
use crate::merge::headers::{Headers, llama};
use crate::merge::ties::output_heads::differing_heads;
use crate::merge::ties::parents::Ties;
use crate::merge::{Action, MergeOptions, MergePlan, Missing, ModelFacts, Warning, plan, unsure};

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
const TIED: &str = r#"{"tie_word_embeddings": true}"#;
const UNTIED: &str = r#"{"tie_word_embeddings": false}"#;

/// Ways to store a head.
fn stored(how: &str) -> Headers {
    let apart = llama(64).crc(EMBEDDING, 1);
    match how {
        "view" => llama(64).without(HEAD).tied(HEAD, EMBEDDING),
        "clone" => apart.crc(HEAD, 1),
        "none" => llama(64).without(HEAD),
        "own" => apart.crc(HEAD, 2),
        other => panic!("no way {other}"),
    }
}

/// A parent: how its head is stored, and what config.json says: `tied`, `untied`, nothing.
fn parent(words: &str) -> Checkpoint {
    let (how, said) = words.split_once(' ').unwrap_or((words, ""));
    match said {
        "tied" => stored(how).config(TIED).open(),
        "untied" => stored(how).config(UNTIED).open(),
        _ => stored(how).open(),
    }
}

fn planned(a: &str, b: &str, options: &MergeOptions) -> Result<MergePlan> {
    plan(&parent(a), &parent(b), options)
}

/// What becomes of the head, and every warning of tensors in a word.
fn outcome(plan: &Result<MergePlan>) -> String {
    let plan = match plan {
        Ok(plan) => plan,
        Err(error) => {
            assert_eq!((error.kind(), error.tensor_name()), (Kind::Data, Some(HEAD)));
            return "refused".to_owned();
        }
    };
    let storage = |name: &str| {
        plan.tensors.iter().find(|tensor| tensor.name == name).map(|tensor| tensor.storage)
    };
    let (embedding, head) = (storage(EMBEDDING).unwrap(), storage(HEAD));
    assert_eq!(plan.storages[embedding].action, Action::Slerp);
    let mut words = match head {
        None => "absent".to_owned(),
        Some(head) if head == embedding => "tied".to_owned(),
        Some(head) => format!("{:?}", plan.storages[head].action),
    };
    for warning in &plan.warnings {
        words.push_str(match warning {
            Warning::OnlyPrimary { .. } => ", only primary",
            Warning::OnlySecondary { .. } => ", only secondary",
            Warning::Untied { .. } => ", forced",
            Warning::TiedInSecondary { .. } => ", one in the secondary",
            Warning::HeadDiffers { parent: "primary", .. } => ", primary differs",
            Warning::HeadDiffers { .. } => ", secondary differs",
            _ => "",
        });
    }
    words
}

#[test]
fn a_head_is_the_embedding_however_a_parent_stores_it() {
    let ways = ["view tied", "clone tied", "view", "none tied", "none"];
    for a in ["view tied", "clone tied", "view", "view untied"] {
        for b in ways.iter().chain(&["clone", "clone untied", "view untied", "none untied"]) {
            let plan = planned(a, b, &MergeOptions::default());
            assert_eq!(outcome(&plan), "tied", "{a}, {b}");
            let plan = plan.unwrap();
            assert_eq!(plan.storages.len(), 20);
            // Each of 64 × 32 once: the layers hold 2 × (2 · 32² + 2 · 16 · 32 + 3 · 64 · 32 + 64).
            assert_eq!(plan.total_parameters, 2048 + 18_560 + 32);
            assert_eq!(plan.total_size, 2 * plan.total_parameters);
        }
    }
    for b in ways {
        for missing in [Missing::Primary, Missing::Error] {
            let options = MergeOptions { missing: Some(missing), ..MergeOptions::default() };
            assert_eq!(outcome(&planned("none tied", b, &options)), "absent", "{b}");
        }
        let options = MergeOptions { missing: Some(Missing::Union), ..MergeOptions::default() };
        let union = if b.starts_with("none") { "absent" } else { "tied" };
        assert_eq!(outcome(&planned("none tied", b, &options)), union, "{b}");
    }
}

#[test]
fn every_other_pair_is_merged_as_it_is_or_refused() {
    for (a, b, expected) in [
        // Both have a head of their own.
        ("own", "own", "Slerp"),
        ("own untied", "own untied", "Slerp"),
        ("own tied", "own tied", "Slerp, primary differs, secondary differs"),
        // The primary's head is merged with the secondary's embedding.
        ("own", "view", "Slerp, one in the secondary"),
        ("own untied", "view tied", "Slerp, one in the secondary"),
        ("own untied", "clone tied", "Slerp, one in the secondary"),
        ("own untied", "none tied", "Slerp, one in the secondary"),
        ("own tied", "none tied", "Slerp, one in the secondary, primary differs"),
        // A secondary without a head, of which nothing says that it is the embedding.
        ("own", "none", "CopyPrimary, only primary"),
        ("own untied", "none untied", "CopyPrimary, only primary"),
        // A clone of which config.json says nothing, or that it is none.
        ("clone", "clone", "tied"),
        ("clone", "view", "tied"),
        ("clone", "none", "tied"),
        ("clone", "own", "Slerp"),
        ("clone untied", "clone untied", "Slerp, one in the secondary"),
        ("clone untied", "own untied", "Slerp"),
        ("clone untied", "none untied", "CopyPrimary, only primary"),
        // The secondary's head would be lost.
        ("view", "own", "refused"),
        ("view tied", "own untied", "refused"),
        ("clone tied", "own", "refused"),
        ("view tied", "own tied", "refused"),
        ("none tied", "own", "refused"),
        // A body without a head, as far as anything tells.
        ("none", "own", "absent, only secondary"),
        ("none untied", "own untied", "absent, only secondary"),
    ] {
        assert_eq!(outcome(&planned(a, b, &MergeOptions::default())), expected, "{a}, {b}");
    }
}

#[test]
fn a_forced_tie_keeps_the_secondarys_embedding_whichever_name_comes_first() {
    let options = MergeOptions { force_config: true, ..MergeOptions::default() };
    let secondary_differs = "tied, forced, secondary differs";
    assert_eq!(outcome(&planned("view tied", "own untied", &options)), "tied, forced");
    assert_eq!(outcome(&planned("view tied", "own tied", &options)), secondary_differs);
    assert_eq!(outcome(&planned("none tied", "own", &options)), "absent, only secondary");
    let head_first = Headers::new().f16(HEAD, &[64, 32]).tied(EMBEDDING, HEAD).open();
    let secondary = Headers::new().f16(HEAD, &[64, 32]).f16(EMBEDDING, &[64, 32]);
    let secondary = secondary.crc(HEAD, 1).crc(EMBEDDING, 2).open();
    let plan = plan(&head_first, &secondary, &options).unwrap();
    assert_eq!((plan.storages.len(), plan.storages[0].name.as_str()), (1, HEAD));
    assert_eq!(plan.storages[0].secondary, Some(1));
}

#[test]
fn what_is_merged_is_the_name_that_the_secondary_has() {
    // The first name of a tie is one that the secondary lacks: T5 without its `shared`.
    let a = Headers::new().f16("shared.weight", &[8, 4]);
    let a = a.tied("encoder.embed_tokens.weight", "shared.weight").open();
    let b = Headers::new().f16("encoder.embed_tokens.weight", &[8, 4]).open();
    let plan = plan(&a, &b, &MergeOptions::default()).unwrap();
    assert_eq!(plan.storages.len(), 1);
    assert_eq!(plan.storages[0].action, Action::Slerp);
    assert_eq!((plan.storages[0].primary, plan.storages[0].secondary), (Some(1), Some(0)));
    assert_eq!(plan.storages[0].name, "shared.weight");
    assert!(!plan.warnings.iter().any(|w| matches!(w, Warning::OnlyPrimary { .. })));
}

#[test]
fn a_short_vocabulary_is_extended_once_for_tied_heads() {
    let a = llama(60).crc(EMBEDDING, 1).crc(HEAD, 1).config(TIED).open();
    let b = llama(64).without(HEAD).config(TIED).open();
    let options = MergeOptions { extend: crate::merge::Extend::Bridge, ..MergeOptions::default() };
    let plan = plan(&a, &b, &options).unwrap();
    let head = plan.tensors.iter().find(|tensor| tensor.name == HEAD).unwrap();
    assert_eq!(head.storage, 0);
    assert_eq!(plan.storages[0].shape, [64, 32]);
    assert_eq!(plan.total_parameters, 64 * 32 + 18_560 + 32);
    assert!(!plan.warnings.iter().any(|w| matches!(w, Warning::ExtendAlone { .. })));
}

#[test]
fn the_decoders_embedding_stands_in_where_there_are_two() {
    let a = |head: bool| {
        let both = Headers::new()
            .f16("encoder.embed_tokens.weight", &[8, 4])
            .f16("decoder.embed_tokens.weight", &[8, 4])
            .crc("encoder.embed_tokens.weight", 1)
            .crc("decoder.embed_tokens.weight", 2);
        if head { both.f16(HEAD, &[8, 4]).crc(HEAD, 3) } else { both.config(TIED) }.open()
    };
    let plan = plan(&a(true), &a(false), &MergeOptions::default()).unwrap();
    assert_eq!(plan.storages[2].secondary, Some(1));
    // Neither of two is the decoder's: nothing stands in.
    let unnamed = |first: &str| {
        let b = Headers::new().f16(first, &[8, 4]).f16("b.embed_tokens.weight", &[8, 4]);
        b.crc(first, 1).crc("b.embed_tokens.weight", 2).config(TIED).open()
    };
    let b = unnamed("a.embed_tokens.weight");
    let head = Headers::new().f16(HEAD, &[8, 4]).open();
    let stand_in = |b: &Checkpoint| Ties::of(&head, b).stand_in(&head.inventory.tensors[0], b);
    assert_eq!(stand_in(&b), None);
    assert_eq!(stand_in(&a(false)), Some(1));
    let layer = Headers::new().f16("model.layers.0.w.weight", &[8, 4]).open();
    assert_eq!(Ties::of(&layer, &b).stand_in(&layer.inventory.tensors[0], &b), None);
}

#[test]
fn untrained_biases_are_not_one_tensor() {
    let bias = |crc: u32| {
        let parent = Headers::new().f16(EMBEDDING, &[8, 4]).f16("cls.bias", &[8]);
        parent.f16("lm_head.bias", &[8]).crc("cls.bias", crc).crc("lm_head.bias", 0).config(TIED)
    };
    let plan = plan(&bias(0).open(), &bias(5).open(), &MergeOptions::default()).unwrap();
    assert_eq!(plan.storages.len(), 3);
}

#[test]
fn masks_that_only_one_parent_shares_are_no_tie() {
    use crate::tensor::DType::{Float16, Int64};
    let (first, second) = ("h.0.attn.bias", "h.1.attn.bias");
    for (dtype, shape) in [(Float16, &[1, 1, 4, 4][..]), (Int64, &[4, 4])] {
        let w = || Headers::new().f16("w", &[16, 16]);
        let shared = w().tensor(first, dtype, shape).tied(second, first).open();
        let apart = w().tensor(first, dtype, shape).tensor(second, dtype, shape).open();
        let one = plan(&shared, &apart, &MergeOptions::default()).unwrap();
        assert_eq!(one.storages.len(), 2);
        let two = plan(&apart, &shared, &MergeOptions::default()).unwrap();
        assert_eq!(two.storages.len(), 3);
        assert!(!two.warnings.iter().any(|w| matches!(w, Warning::TiedInSecondary { .. })));
    }
    // Weights that are shared and were saved one by one are known by their CRCs.
    let shared = Headers::new().f16("a", &[4, 4]).tied("b", "a").open();
    let apart = |crc: u32| {
        Headers::new().f16("a", &[4, 4]).f16("b", &[4, 4]).crc("a", 1).crc("b", crc).open()
    };
    assert_eq!(plan(&shared, &apart(1), &MergeOptions::default()).unwrap().storages.len(), 1);
    assert!(plan(&shared, &apart(2), &MergeOptions::default()).is_err());
}

#[test]
fn only_what_no_header_tells_is_read() {
    let pairs = |headers: Headers| unsure(&headers.open());
    let last = llama(64).open().inventory.tensors.len() - 1;
    assert_eq!(pairs(llama(64)), [(0, last)]);
    assert_eq!(pairs(llama(64).config(TIED)), [(0, last)]);
    assert_eq!(pairs(llama(64).config(UNTIED)), []);
    for how in ["view", "clone", "own", "none"] {
        assert_eq!(pairs(stored(how)), [], "{how}");
    }
    // What was read counts like a CRC.
    let mut read = llama(64).config(TIED).open();
    read.inventory.twins.push((0, last));
    let plan = plan(&read, &parent("none tied"), &MergeOptions::default()).unwrap();
    assert_eq!(plan.storages.len(), 20);
}

#[test]
fn find_shows_what_merge_does() {
    for (words, tied) in [
        ("view", Some(true)),
        ("view untied", Some(true)),
        ("clone", Some(true)),
        ("clone untied", Some(false)),
        ("own tied", Some(false)),
        ("own", Some(false)),
        ("none tied", Some(true)),
        ("none untied", Some(false)),
        ("none", None),
    ] {
        let facts = ModelFacts::of(&parent(words));
        assert_eq!(facts.tied, tied, "{words}");
        let heads = u64::from(words.starts_with("own") || words == "clone untied");
        assert_eq!(facts.parameters, (1 + heads) * 2048 + 18_560 + 32, "{words}");
    }
    assert_eq!(differing_heads(&parent("own tied")), [(HEAD.to_owned(), EMBEDDING.to_owned())]);
    for words in ["own", "own untied", "clone tied", "view tied", "none tied"] {
        assert_eq!(differing_heads(&parent(words)), [], "{words}");
    }
}

//! Tests which tensors are compared, which stand in for a head and which are lost, on parents of
//! headers alone.

use crate::checkpoint::Checkpoint;
use crate::error::Kind;
use crate::merge::headers::{Headers, llama};
use crate::merge::ties::parents::Ties;
use crate::merge::{MergeOptions, Missing, ModelFacts, Warning, plan, unsure};

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
const TIED: &str = r#"{"tie_word_embeddings": true}"#;
const UNTIED: &str = r#"{"tie_word_embeddings": false}"#;

#[test]
fn placeholders_without_elements_are_never_one() {
    let parent = Headers::new().f16("w", &[4, 4]).f16("a", &[0]).tied("b", "a").open();
    assert_eq!(plan(&parent, &parent, &MergeOptions::default()).unwrap().storages.len(), 3);
}

#[test]
fn biases_that_one_parent_shares_are_no_heads() {
    let bias = |crc: u32| {
        let parent = Headers::new().f16(EMBEDDING, &[8, 4]).f16("cls.bias", &[8]);
        parent.f16("lm_head.bias", &[8]).crc("cls.bias", crc).crc("lm_head.bias", 0).open()
    };
    for (a, b) in [(5, 0), (0, 5), (0, 0)] {
        let plan = plan(&bias(a), &bias(b), &MergeOptions::default()).unwrap();
        assert_eq!(plan.storages.len(), 3, "{a} {b}");
        assert!(!plan.warnings.iter().any(|w| matches!(w, Warning::TiedInSecondary { .. })));
    }
}

#[test]
fn an_embedding_stands_in_for_a_head_where_there_is_one_that_fits() {
    use crate::tensor::DType::{Float16, Int64};
    let (encoder, decoder) = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight");
    let secondary = |tensors: &[(&str, u32)]| {
        let tensors = tensors.iter();
        let headers =
            tensors.fold(Headers::new(), |h, (name, crc)| h.f16(name, &[8, 4]).crc(name, *crc));
        headers.config(TIED)
    };
    let stand_in = |name: &str, shape: &[u64], b: &Checkpoint| {
        let head = Headers::new().f16(name, shape).open();
        Ties::of(&head, b).stand_in(&head.inventory.tensors[0], b)
    };
    for (tensors, expected) in [
        (&[(encoder, 1), (decoder, 2)][..], Some(1)),
        (&[(decoder, 1), (encoder, 2)], Some(0)),
        (&[("shared.weight", 1), (encoder, 1), (decoder, 1)], Some(0)),
        (&[("a.wte.weight", 1), ("b.wte.weight", 2)], None),
        (&[(decoder, 1), ("b.wte.weight", 2), (encoder, 3)], Some(0)),
        (&[("norm.weight", 1), ("wte.weight", 2)], Some(1)),
        (&[("norm.weight", 1)], None),
    ] {
        assert_eq!(stand_in(HEAD, &[8, 4], &secondary(tensors).open()), expected, "{tensors:?}");
    }
    let one = secondary(&[("wte.weight", 1)]).open();
    for (name, shape, expected) in [
        (HEAD, &[8, 4][..], Some(0)),
        ("shared.weight", &[8, 4], Some(0)),
        (HEAD, &[9, 4], Some(0)),
        (HEAD, &[8, 5], None),
        (HEAD, &[8], None),
        (HEAD, &[8, 4, 1], None),
        ("lm_head.bias", &[8, 4], None),
        ("norm.weight", &[8, 4], None),
    ] {
        assert_eq!(stand_in(name, shape, &one), expected, "{name} {shape:?}");
    }
    for (dtype, shape) in [(Int64, &[8, 4][..]), (Float16, &[8, 4, 1])] {
        let b = Headers::new().tensor("wte.weight", dtype, shape).config(TIED).open();
        assert_eq!(stand_in(HEAD, &[8, 4], &b), None);
    }
    for config in [UNTIED, "{}"] {
        let b = secondary(&[("wte.weight", 1)]).config(config).open();
        assert_eq!(stand_in(HEAD, &[8, 4], &b), None, "{config}");
    }
}

#[test]
fn only_a_head_of_its_own_is_lost() {
    let a = llama(64).without(HEAD).config(TIED).open();
    let secondary = || llama(64).without(HEAD).crc(EMBEDDING, 1);
    for (b, lost) in [
        (secondary().f16("x.weight", &[2, 2]), false),
        (secondary().f16("lm_head.bias", &[64]), false),
        (secondary().f16(HEAD, &[64]), false),
        (secondary().tied(HEAD, EMBEDDING), false),
        (secondary().f16(HEAD, &[64, 32]).crc(HEAD, 1), false),
        (secondary().f16(HEAD, &[64, 32]).crc(HEAD, 2), true),
        (secondary().f16("x.weight", &[64, 32]).tied(HEAD, "x.weight").crc(HEAD, 2), true),
    ] {
        let names: Vec<String> =
            b.clone().open().inventory.tensors.iter().skip(20).map(|t| t.name.clone()).collect();
        let options = MergeOptions { missing: Some(Missing::Primary), ..MergeOptions::default() };
        let planned = plan(&a, &b.open(), &options);
        let said = planned.err().map(|error| {
            assert_eq!((error.kind(), error.tensor_name()), (Kind::Data, Some(HEAD)));
            error.to_string()
        });
        let begins = "the output head is the embedding in the primary only";
        assert_eq!(said.is_some_and(|said| said.starts_with(begins)), lost, "{names:?}");
    }
}

#[test]
fn rows_of_tokens_are_those_of_floats_of_the_embeddings_length() {
    use crate::tensor::DType::{Float16, Int64};
    let with = |name: &str, dtype, shape: &[u64]| {
        unsure(&Headers::new().f16(EMBEDDING, &[8, 4]).tensor(name, dtype, shape).open())
    };
    for (name, dtype, shape, compared) in [
        (HEAD, Float16, &[8, 4][..], true),
        (HEAD, Float16, &[8, 5], false),
        (HEAD, Float16, &[9, 4], false),
        (HEAD, Int64, &[8, 4], false),
        ("x.weight", Float16, &[8, 4], false),
    ] {
        assert_eq!(!with(name, dtype, shape).is_empty(), compared, "{name} {shape:?}");
    }
    let biases = |names: [&str; 2], rows: u64| {
        let headers = Headers::new().f16(EMBEDDING, &[8, 4]);
        unsure(&names.iter().fold(headers, |h, name| h.f16(name, &[rows])).open())
    };
    assert_eq!(biases(["a.bias", "lm_head.bias"], 8), [(1, 2)]);
    assert_eq!(biases(["a.bias", "lm_head.bias"], 4), []);
    let empty = Headers::new().f16(EMBEDDING, &[0, 4]).f16(HEAD, &[0, 4]).open();
    assert_eq!(unsure(&empty), []);
    assert_eq!(unsure(&Headers::new().f16("a.bias", &[8]).f16("b.bias", &[8]).open()), []);
}

#[test]
fn a_model_whose_class_has_a_head_that_its_files_lack_has_it_tied() {
    for (class, tied) in [
        ("LlamaForCausalLM", Some(true)),
        ("GPT2LMHeadModel", Some(true)),
        ("LlamaModel", None),
        ("ForCausalLMs", None),
    ] {
        let config = format!(r#"{{"architectures": ["{class}"]}}"#);
        let facts = ModelFacts::of(&llama(64).without(HEAD).config(&config).open());
        assert_eq!(facts.tied, tied, "{class}");
    }
}

#[test]
fn a_forced_tie_of_two_embeddings_keeps_the_first() {
    let (encoder, decoder) = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight");
    let a = Headers::new().f16(encoder, &[8, 4]).tied(decoder, encoder).open();
    let b = Headers::new().f16(encoder, &[8, 4]).f16(decoder, &[8, 4]);
    let b = b.crc(encoder, 1).crc(decoder, 2);
    let third = b.clone().tied("third.weight", decoder).open();
    let b = b.open();
    let options = MergeOptions { force_config: true, ..MergeOptions::default() };
    let forced = plan(&a, &b, &options).unwrap();
    assert_eq!((forced.storages.len(), forced.storages[0].secondary), (1, Some(0)));
    let untied = Warning::Untied { first: encoder.to_owned(), other: decoder.to_owned() };
    assert!(forced.warnings.contains(&untied));
    // One more name of what was left out is one more name of what is kept, and said once.
    let options = MergeOptions { missing: Some(Missing::Union), ..options };
    let union = plan(&a, &third, &options).unwrap();
    assert_eq!((union.storages.len(), union.tensors.len()), (1, 3));
    assert_eq!(union.warnings.iter().filter(|warning| **warning == untied).count(), 1);
    assert!(!union.warnings.iter().any(|w| *w != untied && matches!(w, Warning::Untied { .. })));
    let error = plan(&a, &b, &MergeOptions::default()).unwrap_err();
    assert_eq!((error.kind(), error.tensor_name()), (Kind::Data, Some(decoder)));
    assert!(error.to_string().starts_with("two tensors of the secondary are one in the primary"));
}

//! What is paired with what, and what is refused: parents of headers alone.

use crate::checkpoint::{Checkpoint, Side};
use crate::error::Kind;
use crate::merge::edges::Edges;
use crate::merge::headers::{Headers, llama};
use crate::merge::options::{Extend, MergeOptions, Method, Missing};
use crate::merge::pair::Extension;
use crate::merge::plan::{MergePlan, plan};
use crate::merge::planned::{Action, PlannedStorage};
use crate::merge::{KnownBuffer, Warning};
use crate::tensor::DType;

fn merged(a: &Checkpoint, b: &Checkpoint) -> MergePlan {
    plan(a, b, &MergeOptions::default()).unwrap()
}

fn refused(a: &Checkpoint, b: &Checkpoint, options: &MergeOptions) -> String {
    let error = plan(a, b, options).unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
    error.to_string()
}

fn storage<'p>(plan: &'p MergePlan, name: &str) -> &'p PlannedStorage {
    plan.storages.iter().find(|storage| storage.name == name).unwrap()
}

fn with(missing: Missing) -> MergeOptions {
    MergeOptions { missing: Some(missing), ..MergeOptions::default() }
}

fn masked(dtype: DType, size: u64) -> Headers {
    let headers = Headers::new().f16("h.0.attn.c_attn.weight", &[8, 8]);
    headers.tensor("h.0.attn.bias", dtype, &[1, 1, size, size])
}

#[test]
fn a_buffer_is_the_primarys_and_compared_where_both_are_alike() {
    for (dtype, size, compared) in [
        (DType::UInt8, 4, true),
        (DType::Bool, 4, false),
        (DType::UInt8, 8, false),
        (DType::Float32, 4, false),
    ] {
        let (a, b) = (masked(DType::UInt8, 4).open(), masked(dtype, size).open());
        let plan = merged(&a, &b);
        let mask = storage(&plan, "h.0.attn.bias");
        assert_eq!((mask.dtype, mask.shape.as_slice()), (DType::UInt8, &[1, 1, 4, 4][..]));
        assert_eq!((mask.action, mask.buffer), (Action::CopyPrimary, Some(KnownBuffer::Mask)));
        assert_eq!((mask.primary, mask.secondary), (Some(1), compared.then_some(1)), "{dtype}");
        let said = plan.warnings.iter().any(|w| matches!(w, Warning::Buffers { count: 1, .. }));
        assert_eq!(said, !compared);
        assert_eq!(storage(&plan, "h.0.attn.c_attn.weight").buffer, None);
    }
}

#[test]
fn a_buffer_that_is_converted_is_not_compared() {
    let floats = masked(DType::Float32, 4).open();
    for (dtype, compared) in
        [(None, true), (Some(DType::Float32), true), (Some(DType::Float16), false)]
    {
        let options = MergeOptions { dtype, ..MergeOptions::default() };
        let plan = plan(&floats, &floats, &options).unwrap();
        assert_eq!(storage(&plan, "h.0.attn.bias").secondary.is_some(), compared, "{dtype:?}");
    }
    let integers = masked(DType::UInt8, 4).open();
    let options = MergeOptions { dtype: Some(DType::Float32), ..MergeOptions::default() };
    let plan = plan(&integers, &integers, &options).unwrap();
    assert_eq!(storage(&plan, "h.0.attn.bias").secondary, Some(1));
}

#[test]
fn statistics_are_merged_by_either_method_and_counted_as_no_parameters() {
    let parent = Headers::new().f16("bn.weight", &[4]).f16("bn.running_var", &[4]).open();
    for (method, action) in [(Method::Slerp, Action::Slerp), (Method::Linear, Action::Linear)] {
        let options = MergeOptions { method, ..MergeOptions::default() };
        let plan = plan(&parent, &parent, &options).unwrap();
        assert!(plan.storages.iter().all(|storage| storage.action == action));
        assert_eq!(plan.total_parameters, 4);
    }
}

#[test]
fn a_figure_of_the_index_grows_by_what_a_union_adds_but_not_by_buffers() {
    let weights = || Headers::new().f16("a.w", &[10, 10]);
    let mut a = weights().open();
    let b = weights().f16("b.w", &[3]).f16("a.masked_bias", &[]).tensor("ids", DType::Int64, &[5]);
    let b = b.open();
    for (figure, expected) in [(Some(1000), 1003), (None, 103)] {
        a.total_parameters = figure;
        assert_eq!(plan(&a, &b, &with(Missing::Union)).unwrap().total_parameters, expected);
    }
}

#[test]
fn parents_of_buffers_alone_in_common_have_nothing_in_common() {
    let inv_freq =
        |name: &str| Headers::new().f16(name, &[4]).f16("rotary_emb.inv_freq", &[4]).open();
    let (a, b) = (inv_freq("a.w"), inv_freq("b.w"));
    for options in [MergeOptions::default(), with(Missing::Primary)] {
        assert!(refused(&a, &b, &options).starts_with("the parents have no tensor in common"));
    }
    assert_eq!(plan(&a, &b, &with(Missing::Union)).unwrap().tensors.len(), 3);
    let only = Headers::new().f16("rotary_emb.inv_freq", &[4]).open();
    assert_eq!(merged(&only, &only).storages.len(), 1);
}

#[test]
fn what_is_alone_is_copied_from_its_side_and_said() {
    let (a, b) = (llama(64).f16("x.w", &[2]).open(), llama(64).f16("y.w", &[3]).open());
    let plan_of = |missing| plan(&a, &b, &with(missing)).unwrap();
    let union = plan_of(Missing::Union);
    let (x, y) = (storage(&union, "x.w"), storage(&union, "y.w"));
    assert_eq!((x.action, x.primary, x.secondary), (Action::CopyPrimary, Some(21), None));
    assert_eq!((y.action, y.primary, y.secondary), (Action::CopySecondary, None, Some(21)));
    let named = |plan: &MergePlan, taken: bool| {
        let names = vec!["y.w".to_owned()];
        plan.warnings.contains(&Warning::OnlySecondary { names, taken })
            && plan.warnings.contains(&Warning::OnlyPrimary { names: vec!["x.w".to_owned()] })
    };
    assert!(named(&union, true));
    let primary = plan_of(Missing::Primary);
    assert!(named(&primary, false) && primary.tensors.len() == 22);
    let said = refused(&a, &b, &with(Missing::Error));
    assert!(
        said.contains("x.w: only in the primary") && said.contains("y.w: only in the secondary")
    );
    let same = llama(64).open();
    assert!(plan(&same, &same, &with(Missing::Error)).is_ok());
}

#[test]
fn a_head_that_only_one_parent_has_is_extended_with_its_vocabulary() {
    let body = |rows: u64| Headers::new().f16("_orig_mod.embed_tokens.weight", &[rows, 4]);
    let (short, long) = (body(6).f16("_orig_mod.lm_head.weight", &[6, 4]).open(), body(8).open());
    let plan_of = |options: &MergeOptions| plan(&short, &long, options).unwrap();
    let plan = plan_of(&MergeOptions::default());
    let edges = Edges { last: 5, first: 0, longer_last: 7 };
    let rows = Extension { side: Side::Primary, from_rows: 6, to_rows: 8, axis: 0, edges };
    for name in ["embed_tokens.weight", "lm_head.weight"] {
        assert_eq!(storage(&plan, name).extension, Some(rows), "{name}");
        assert_eq!(storage(&plan, name).shape, [8, 4]);
    }
    let alone = |plan: &MergePlan| {
        plan.warnings.contains(&Warning::ExtendAlone { name: "lm_head.weight".to_owned() })
    };
    let bridge = MergeOptions { extend: Extend::Bridge, ..MergeOptions::default() };
    assert!(!alone(&plan) && alone(&plan_of(&bridge)));
}

#[test]
fn depths_are_compared_by_the_names_in_the_child() {
    let deep = |prefix: &str, layers: u64| {
        (0..layers).fold(Headers::new(), |headers, layer| {
            headers
                .f16(&format!("{prefix}layers.{layer}.w"), &[4])
                .f16(&format!("{prefix}n{layer}.w"), &[4])
        })
    };
    let (a, b) = (deep("_orig_mod.", 30).open(), deep("", 29).open());
    for (a, b) in [(&a, &b), (&b, &a)] {
        let said = refused(a, b, &MergeOptions::default());
        assert!(said.contains("their depths differ") && said.contains("layers.N: "), "{said}");
    }
    assert_eq!(merged(&a, &deep("model.", 30).open()).tensors.len(), 60);
}

#[test]
fn shapes_and_kinds_that_differ_are_all_listed() {
    let a = Headers::new().f16("a.w", &[2, 3]).f16("b.w", &[4]).f16("c.w", &[5]).open();
    let b = Headers::new().f16("a.w", &[3, 2]).tensor("b.w", DType::Int64, &[4]).f16("c.w", &[5]);
    let said = refused(&a, &b.open(), &MergeOptions::default());
    assert!(
        said.contains("2 tensors that differ") && said.contains("a.w: [2, 3] and [3, 2]"),
        "{said}"
    );
    assert!(said.contains("b.w: float16 and int64"), "{said}");
}

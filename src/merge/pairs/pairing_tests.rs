//! Tests what is paired with what, and what is refused, on parents of headers alone.

use crate::checkpoint::{Checkpoint, Side};
use crate::error::Kind;
use crate::merge::headers::{Headers, llama};
use crate::merge::options::{Extend, MergeOptions, Method, Missing};
use crate::merge::plan::merge_plan::{MergePlan, plan};
use crate::merge::plan::planned::{Action, PlannedStorage};
use crate::merge::vocab::edges::Edges;
use crate::merge::vocab::extension::Extension;
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
        let mask = storage(&plan, "h.0.attn.bias");
        let expected = (Action::CopyPrimary, compared);
        assert_eq!((mask.action, mask.secondary.is_some()), expected, "{dtype:?}");
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

#[test]
fn a_body_gets_the_others_prefix_only_where_it_gets_its_head() {
    let a = Headers::new().f16("wte.weight", &[8, 4]).f16("h.0.attn.weight", &[4, 4]).open();
    let b = Headers::new().f16("lm_head.weight", &[8, 4]);
    let b = b.f16("transformer.wte.weight", &[8, 4]).f16("transformer.h.0.attn.weight", &[4, 4]);
    let b = b.open();
    let names = |missing| -> Vec<String> {
        let options = MergeOptions { missing, ..MergeOptions::default() };
        plan(&a, &b, &options).unwrap().tensors.into_iter().map(|tensor| tensor.name).collect()
    };
    let headed = ["transformer.wte.weight", "transformer.h.0.attn.weight", "lm_head.weight"];
    assert_eq!(names(Some(Missing::Union)), headed);
    assert_eq!(names(Some(Missing::Primary)), ["wte.weight", "h.0.attn.weight"]);
    assert_eq!(names(None), ["wte.weight", "h.0.attn.weight"]);
}

#[test]
fn a_tensor_of_either_parent_alone_is_refused_where_none_may_be_missing() {
    let (less, more) = (llama(64).open(), llama(64).f16("x.w", &[2]).open());
    for (a, b, said) in
        [(&more, &less, "x.w: only in the primary"), (&less, &more, "x.w: only in the secondary")]
    {
        let refusal = refused(a, b, &with(Missing::Error));
        assert!(refusal.starts_with("the parents do not have the same tensors"), "{refusal}");
        assert!(refusal.contains(said), "{refusal}");
    }
}

#[test]
fn buffers_are_copied_only_where_both_are_the_same_kind() {
    let parent =
        |name: &str, shape: &[u64]| Headers::new().f16("w", &[8, 8]).f16(name, shape).open();
    for (name, a, b) in [
        // A mask and a bias; statistics of other widths.
        ("h.0.attn.bias", &[1, 1, 4, 4][..], &[8][..]),
        ("h.0.attn.bias", &[8], &[1, 1, 4, 4]),
        ("bn.running_var", &[4], &[5]),
    ] {
        let said = refused(&parent(name, a), &parent(name, b), &MergeOptions::default());
        assert!(said.contains(&format!("{name}: {a:?} and {b:?}")), "{said}");
    }
}

#[test]
fn kinds_of_dtype_may_differ_among_floats_alone() {
    use DType::{BFloat16, Float16, Float32, Int32, Int64};
    let parent = |dtype| Headers::new().f16("w", &[8, 8]).tensor("x", dtype, &[4]).open();
    for (a, b, action) in [
        (Float16, Float32, Some(Action::Slerp)),
        (BFloat16, Float16, Some(Action::Slerp)),
        (Int64, Int64, Some(Action::CopyPrimary)),
        (Int32, Int64, None),
        (Float16, Int64, None),
        (Int64, Float16, None),
    ] {
        let planned = plan(&parent(a), &parent(b), &MergeOptions::default());
        let found =
            planned.ok().map(|plan| (storage(&plan, "x").action, storage(&plan, "x").dtype));
        assert_eq!(found, action.map(|action| (action, a)), "{a} {b}");
    }
}

#[test]
fn only_floating_rows_are_extended() {
    let parent = |rows: u64, dtype| {
        Headers::new().f16("wte.weight", &[rows, 4]).tensor("x.bias", dtype, &[rows]).open()
    };
    let floats = [DType::Float16, DType::Float32].map(|dtype| parent(6, dtype));
    for short in &floats {
        assert_eq!(storage(&merged(short, &parent(8, DType::Float16)), "x.bias").shape, [8]);
    }
    let (short, long) = (parent(6, DType::Int64), parent(8, DType::Int64));
    let said = refused(&short, &long, &MergeOptions::default());
    assert!(said.contains("x.bias: [6] and [8]"), "{said}");
    let head =
        |dtype| Headers::new().f16("wte.weight", &[6, 4]).tensor("lm_head.bias", dtype, &[6]);
    let long = Headers::new().f16("wte.weight", &[8, 4]).open();
    for (dtype, rows) in [(DType::Float16, 8), (DType::Int64, 6)] {
        assert_eq!(storage(&merged(&head(dtype).open(), &long), "lm_head.bias").shape, [rows]);
    }
}

#[test]
fn a_head_alone_is_extended_on_the_shorter_side_only() {
    let body = |rows: u64| Headers::new().f16("wte.weight", &[rows, 4]);
    let headed = |rows: u64| body(rows).f16("lm_head.weight", &[rows, 4]).open();
    let extended = |a: &Checkpoint, b: &Checkpoint| {
        let plan = plan(a, b, &with(Missing::Union)).unwrap();
        let head = storage(&plan, "lm_head.weight");
        assert_eq!(head.shape, [8, 4]);
        head.extension.map(|rows| (rows.side, rows.from_rows, rows.to_rows))
    };
    let (short, long) = (body(6).open(), body(8).open());
    assert_eq!(extended(&headed(6), &long), Some((Side::Primary, 6, 8)));
    assert_eq!(extended(&long, &headed(6)), Some((Side::Secondary, 6, 8)));
    assert_eq!(extended(&headed(8), &short), None);
    assert_eq!(extended(&short, &headed(8)), None);
    assert_eq!(extended(&headed(8), &long), None);
}

#[test]
fn tied_tensors_without_a_partner_are_named_and_those_with_one_are_not() {
    let tied = || Headers::new().f16("a", &[2]).tied("b", "a").f16("w", &[8, 8]).open();
    let (both, without) = (tied(), Headers::new().f16("w", &[8, 8]).open());
    let first = Headers::new().f16("a", &[2]).f16("w", &[8, 8]).open();
    let alone = |a: &Checkpoint, b: &Checkpoint| -> Vec<String> {
        let plan = merged(a, b);
        let named = plan.warnings.iter().filter_map(|warning| match warning {
            Warning::OnlyPrimary { names } | Warning::OnlySecondary { names, .. } => Some(names),
            _ => None,
        });
        named.flatten().cloned().collect()
    };
    for (a, b) in [(&both, &without), (&without, &both)] {
        assert_eq!(alone(a, b), ["a", "b"]);
    }
    for (a, b) in [(&both, &first), (&first, &both), (&both, &both)] {
        assert_eq!(alone(a, b), [] as [&str; 0]);
    }
}

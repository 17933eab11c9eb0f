//! Tests what a plan holds, tells and refuses, on parents of headers alone.

use crate::checkpoint::Checkpoint;
use crate::error::Kind;
use crate::merge::headers::{Headers, llama};
use crate::merge::{Action, MergeOptions, MergePlan, Warning, plan};
use crate::tensor::DType;

fn planned(a: &Checkpoint, b: &Checkpoint) -> MergePlan {
    plan(a, b, &MergeOptions::default()).unwrap()
}

fn refused(a: &Checkpoint, b: &Checkpoint) -> (String, Option<String>) {
    let error = plan(a, b, &MergeOptions::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
    (error.to_string(), error.tensor_name().map(str::to_owned))
}

#[test]
fn parents_without_tensors_are_refused() {
    let none = Headers::new().open();
    assert!(refused(&none, &none).0.starts_with("there is nothing to merge: parent"));
}

#[test]
fn what_each_parent_says_of_itself_is_told() {
    let config = |headers: Headers| headers.config(r#"{"vocab_size": 8}"#).open();
    let (bare, mut whole) = (llama(8).open(), config(llama(8)));
    let no = |parent| Warning::NoConfig { parent };
    assert_eq!(planned(&bare, &bare).warnings, [no("primary"), no("secondary")]);
    assert_eq!(planned(&bare, &whole).warnings, [no("primary")]);
    assert_eq!(planned(&whole, &bare).warnings, [no("secondary")]);
    whole.notes.push("odd".to_owned());
    let notes = ["primary: odd", "secondary: odd"].map(|note| Warning::Note(note.to_owned()));
    assert_eq!(planned(&whole, &whole).warnings, notes);
}

#[test]
fn code_and_vocab_sizes_that_the_child_lacks_are_told() {
    for (config, copy_code, rows, custom) in [
        (r#"{"vocab_size": 8}"#, false, false, false),
        ("{}", false, true, false),
        (r#"{"vocab_size": 8, "auto_map": {"AutoModel": "m.M"}}"#, false, false, true),
        (r#"{"vocab_size": 8, "auto_map": {"AutoModel": "m.M"}}"#, true, false, false),
        ("{}", true, true, false),
    ] {
        let parent = llama(8).config(config).open();
        let options = MergeOptions { copy_code, ..MergeOptions::default() };
        let warnings = plan(&parent, &parent, &options).unwrap().warnings;
        assert_eq!(warnings.contains(&Warning::NoVocabSize { rows: 8 }), rows, "{config}");
        assert_eq!(warnings.contains(&Warning::CustomCode), custom, "{config} {copy_code}");
    }
}

#[test]
fn pairs_of_two_dtypes_are_counted_and_the_first_is_named() {
    use DType::{Float16, Float32};
    let parent = |dtypes: [DType; 3]| {
        let places = dtypes.iter().zip(["a.w", "b.w", "c.w"]);
        let headers = places.fold(Headers::new(), |h, (dtype, name)| h.tensor(name, *dtype, &[4]));
        headers.config("{}").open()
    };
    let a = parent([Float16; 3]);
    for (b, expected) in [
        ([Float16; 3], None),
        ([Float16, Float32, Float16], Some((1, "b.w"))),
        ([Float32; 3], Some((3, "a.w"))),
    ] {
        let of = |(count, name): (usize, &str)| Warning::DTypes {
            count,
            name: name.to_owned(),
            primary: Float16,
            secondary: Float32,
        };
        let expected: Vec<Warning> = expected.map(of).into_iter().collect();
        assert_eq!(planned(&a, &parent(b)).warnings, expected);
    }
}

#[test]
fn a_dtype_that_was_asked_for_is_that_of_floats_alone() {
    let parent = Headers::new().f16("w", &[3, 5]).tensor("ids", DType::Int64, &[4]).open();
    for (dtype, expected, bytes) in
        [(None, DType::Float16, 30), (Some(DType::Float32), DType::Float32, 60)]
    {
        let options = MergeOptions { dtype, ..MergeOptions::default() };
        let plan = plan(&parent, &parent, &options).unwrap();
        let made: Vec<_> =
            plan.storages.iter().map(|made| (made.dtype, made.action, made.size_bytes())).collect();
        let ids = (DType::Int64, Action::CopyPrimary, 32);
        assert_eq!(made, [(expected, Action::Slerp, bytes), ids]);
        assert_eq!((plan.total_size, plan.total_parameters), (bytes + 32, 15));
    }
}

#[test]
fn what_has_no_meaning_in_a_merge_is_refused_in_either_parent() {
    let plain = || Headers::new().f16("w", &[4, 4]).f16("x", &[4]);
    let expanded = {
        let mut parent = plain().open();
        parent.inventory.storages[1].size_bytes -= 1;
        parent
    };
    let complex = Headers::new().f16("w", &[4, 4]).tensor("x", DType::Complex64, &[4]).open();
    for (parent, found) in
        [(&expanded, "an expanded view [4] over 7 bytes"), (&complex, "complex64")]
    {
        for (a, b) in [(parent, parent), (parent, &plain().open())] {
            let (said, tensor) = refused(a, b);
            let kinds = said.starts_with("the parents are of different sizes");
            assert!(kinds || said.starts_with("a tensor can't be merged"), "{said}");
            assert!(said.contains(found), "{said}");
            assert!(kinds || tensor.as_deref() == Some("x"), "{said}");
        }
    }
    let (said, tensor) = refused(&plain().open(), &expanded);
    assert!(said.contains("expanded view") && tensor.as_deref() == Some("x"), "{said}");
}

#[test]
fn sizes_in_bytes_fit_an_i64_even_in_float64() {
    let parent = |elements: u64| {
        let mut parent = Headers::new().tensor("w", DType::UInt8, &[elements]).open();
        parent.inventory.storages[0].crc32 = Some(1);
        parent
    };
    let (most, more) = (parent((1 << 59) - 1), parent(1 << 59));
    assert!(plan(&most, &most, &MergeOptions::default()).is_ok());
    let (said, tensor) = refused(&more, &more);
    assert!(said.starts_with("tensor is too large"), "{said}");
    assert_eq!(tensor.as_deref(), Some("w"));
}

//! Tests the matching of names, on parents of headers alone.

use crate::error::Kind;
use crate::merge::headers::Headers;
use crate::merge::names::matching::Names;

fn parent(names: &[&str]) -> Headers {
    names.iter().fold(Headers::new(), |headers, name| headers.f16(name, &[2]))
}

fn names(a: &[&str], b: &[&str], union: bool) -> Names {
    Names::of(&parent(a).open(), &parent(b).open(), union).unwrap()
}

const LLAMA: [&str; 3] =
    ["model.embed_tokens.weight", "model.layers.0.mlp.weight", "lm_head.weight"];
const GPT2: [&str; 3] = ["wte.weight", "h.0.attn.weight", "ln_f.weight"];
const HEADED: [&str; 4] = [
    "lm_head.weight",
    "transformer.wte.weight",
    "transformer.h.0.attn.weight",
    "transformer.ln_f.weight",
];

#[test]
fn equal_names_are_matched_without_a_word() {
    let names = names(&LLAMA, &[LLAMA[2], LLAMA[0], "x.w"], false);
    assert_eq!(names.partner, [Some(1), None, Some(0)]);
    assert_eq!(names.child, LLAMA);
    assert_eq!(names.theirs, [LLAMA[2], LLAMA[0], "x.w"]);
    assert_eq!(names.matched, None);
}

#[test]
fn the_child_has_the_primarys_names_without_wrapper_words() {
    let wrapped = LLAMA.map(|name| format!("_orig_mod.{name}"));
    let wrapped = [0, 1, 2].map(|at: usize| wrapped[at].as_str());
    for (a, b) in [(LLAMA, wrapped), (wrapped, LLAMA), (wrapped, wrapped)] {
        let names = names(&a, &b, false);
        assert_eq!(names.partner, [Some(0), Some(1), Some(2)]);
        assert_eq!(
            (names.child.as_slice(), names.theirs.as_slice()),
            (&LLAMA.map(str::to_owned)[..], &LLAMA.map(str::to_owned)[..])
        );
    }
    let said = names(&wrapped, &LLAMA, false).matched;
    let words = "names were matched by reading the primary's without `_orig_mod`; the child has \
                 the primary's names without these words";
    assert_eq!(said.as_deref(), Some(words));
}

#[test]
fn a_body_with_and_without_its_prefix_is_one() {
    let there = names(&HEADED, &GPT2, true);
    assert_eq!(there.partner, [None, Some(0), Some(1), Some(2)]);
    assert_eq!(
        (there.child.as_slice(), there.theirs.as_slice()),
        (&HEADED.map(str::to_owned)[..], &HEADED.map(str::to_owned)[1..])
    );
    let back = names(&GPT2, &HEADED, false);
    assert_eq!(
        (back.child, back.partner),
        (GPT2.map(str::to_owned).to_vec(), vec![Some(1), Some(2), Some(3)])
    );
}

#[test]
fn a_body_that_gets_a_head_gets_the_prefix_that_goes_with_it() {
    let union = names(&GPT2, &HEADED, true);
    assert_eq!(
        (union.child.as_slice(), union.theirs.as_slice()),
        (&HEADED.map(str::to_owned)[1..], &HEADED.map(str::to_owned)[..])
    );
    let said = union.matched.unwrap();
    assert!(
        said.ends_with("the primary's names behind `transformer.`, where its heads are not"),
        "{said}"
    );
    // Not where it has one itself, and not where the head is wrapped with the body.
    let own = names(&[GPT2[0], GPT2[1], "score.weight"], &HEADED, true);
    assert_eq!(own.child, [GPT2[0], GPT2[1], "score.weight"]);
    let tied = names(
        &LLAMA[..2],
        &LLAMA
            .map(|name| {
                name.replace("lm_head", "model.lm_head").replacen(
                    "model.",
                    "model.model.",
                    usize::from(!name.starts_with("lm")),
                )
            })
            .each_ref()
            .map(String::as_str),
        true,
    );
    assert_eq!(tied.child, &LLAMA[..2]);
    assert_eq!(tied.theirs, LLAMA);
}

#[test]
fn a_foreign_prefix_of_the_primary_is_taken_off() {
    let lightning = [
        "model.model.embed_tokens.weight",
        "model.model.layers.0.mlp.weight",
        "model.lm_head.weight",
    ];
    let names = names(&lightning, &LLAMA, false);
    assert_eq!(
        (names.child.as_slice(), names.partner.as_slice()),
        (&LLAMA.map(str::to_owned)[..], &[Some(0), Some(1), Some(2)][..])
    );
}

#[test]
fn the_line_says_what_the_child_is_called_like() {
    let ends = |a: &[&str], b: &[&str], union: bool, end: &str| {
        let said = names(a, b, union).matched.unwrap();
        assert!(said.ends_with(&format!("; the child has {end}")), "{said}");
        said
    };
    // The prefix is the secondary's, and the primary's names stay.
    let said = ends(&GPT2, &HEADED, false, "the primary's names");
    assert!(said.contains("reading the secondary's without `transformer.`;"), "{said}");
    // It is the primary's own, or a program's that the child does without.
    ends(&HEADED, &GPT2, false, "the primary's names");
    let lightning = LLAMA.map(|name| format!("net.{name}"));
    let lightning = lightning.each_ref().map(String::as_str);
    ends(&lightning, &LLAMA, false, "the primary's names without these words");
    ends(
        &GPT2,
        &HEADED,
        true,
        "the primary's names behind `transformer.`, where its heads are not",
    );
    // An old spelling that both have is not told of.
    let old = ["a.LayerNorm.gamma", "b.w"];
    let wrapped = ["_orig_mod.a.LayerNorm.gamma", "_orig_mod.b.w"];
    let said = ends(&wrapped, &old, false, "the primary's names without these words");
    assert!(!said.contains("gamma"), "{said}");
    let words =
        "reading the primary's without `_orig_mod`, `a.LayerNorm.gamma` as `a.LayerNorm.weight`;";
    let today = ["a.LayerNorm.weight", "b.w"];
    let said = ends(&wrapped, &today, false, "the primary's names without these words");
    assert!(said.contains(words), "{said}");
}

#[test]
fn the_secondarys_other_tensors_get_names_of_the_childs_kind() {
    let masked = [GPT2[0], GPT2[1], GPT2[2], "h.0.attn.bias"];
    let names = names(&HEADED, &masked, true);
    assert_eq!(names.theirs[3], "transformer.h.0.attn.bias");
    let headed = [HEADED[1], HEADED[2], HEADED[3], "transformer.h.0.attn.bias"];
    let names = crate::merge::names::matching_tests::names(&GPT2, &headed, true);
    assert_eq!(names.theirs[3], "h.0.attn.bias");
}

#[test]
fn a_module_of_its_own_stays_where_nothing_speaks_against_it() {
    let levit = ["levit.stages.0.module.key.weight", "levit.stages.1.module.key.weight"];
    let plain = levit.map(|name| name.replace(".module", ""));
    let plain = plain.each_ref().map(String::as_str);
    assert_eq!(names(&levit, &levit, false).child, levit);
    assert_eq!(names(&levit, &plain, false).child, plain);
    assert_eq!(names(&plain, &levit, false).theirs, plain);
    let config = |text: &str| {
        let [a, b] = [levit, levit].map(|names| parent(&names).config(text).open());
        Names::of(&a, &b, false).unwrap().child
    };
    assert_eq!(config(r#"{"model_type": "levit"}"#), levit);
    assert_eq!(config(r#"{"model_type": "llama"}"#), plain);
}

#[test]
fn old_spellings_are_matched_and_said() {
    let old = ["a.LayerNorm.gamma", "a.LayerNorm.beta", "c.weight_g"];
    let new = ["a.LayerNorm.weight", "a.LayerNorm.bias", "c.parametrizations.weight.original0"];
    for (a, b) in [(old, new), (new, old)] {
        let names = names(&a, &b, false);
        assert_eq!(names.partner, [Some(0), Some(1), Some(2)]);
        assert_eq!(
            (names.child.as_slice(), names.theirs.as_slice()),
            (&a.map(str::to_owned)[..], &a.map(str::to_owned)[..])
        );
        let said = format!(
            "reading `{}` as `{}` and 2 more alike; the child has the primary's names",
            a[0], b[0]
        );
        assert!(names.matched.unwrap().ends_with(&said));
    }
    assert_eq!(names(&old, &old, false).matched, None);
}

#[test]
fn two_tensors_of_one_name_are_refused_on_either_side() {
    let twice = parent(&["a.LayerNorm.gamma", "a.LayerNorm.weight"]).open();
    let once = parent(&["a.LayerNorm.weight"]).open();
    for (a, b) in [(&twice, &once), (&once, &twice)] {
        let error = Names::of(a, b, false).unwrap_err();
        assert_eq!((error.kind(), error.tensor_name()), (Kind::Data, Some("a.LayerNorm.weight")));
    }
}

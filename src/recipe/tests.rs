//! Recipes as people write them, and what of them is refused: by line and key.

use std::path::Path;

use crate::error::Kind;
use crate::merge::{Filter, Method, VocabMode};
use crate::recipe::Recipe;
use crate::tensor::DType;

/// The form that most published merges have.
const USUAL: &str = "slices:
  - sources:
      - model: org/a
        layer_range: [0, 32]
      - model: org/b
        layer_range: [0, 32]
merge_method: slerp
base_model: org/b
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5
dtype: bfloat16
";

const MODELS: &str = "models:\n  - model: a\n  - model: b\nbase_model: a\nmerge_method: slerp\n";

const HALF: &str = "parameters: {t: 0.5}\n";

fn read(text: &str) -> Recipe {
    Recipe::parse(text, "x").unwrap()
}

fn refused(text: &str) -> String {
    let error = Recipe::parse(text, "x").unwrap_err();
    assert_eq!(error.kind(), Kind::Usage, "{text}");
    error.to_string()
}

fn shown(filters: &[Filter]) -> Vec<String> {
    filters.iter().map(ToString::to_string).collect()
}

#[test]
fn the_usual_recipe_is_read_with_the_base_as_primary_wherever_it_is_listed() {
    let recipe = read(USUAL);
    assert_eq!(
        (recipe.primary.as_path(), recipe.secondary.as_path()),
        (Path::new("org/b"), Path::new("org/a"))
    );
    assert_eq!(
        (recipe.method, recipe.dtype, recipe.vocab),
        (Method::Slerp, Some(DType::BFloat16), None)
    );
    let expected = ["self_attn=0,0.5,0.3,0.7,1", "mlp=1,0.5,0.7,0.3,0", "*=0.5"];
    assert_eq!(shown(&recipe.child.schedule.filters), expected);
    assert_eq!((recipe.slices.len(), recipe.slices[0].primary), (1, (0, 32)));
}

#[test]
fn a_slices_own_parameters_come_first_and_ranges_may_be_shifted() {
    let text = "merge_method: slerp\nbase_model: a\nslices:\n\
        - {sources: [{model: b, layer_range: [4, 8]}, {model: a, layer_range: [0, 4]}]}\n\
        - sources: [{model: a, layer_range: [6, 8]}, {model: b, layer_range: [1, 3]}]\n  \
          parameters: {t: [{filter: mlp, value: 0}]}\nparameters: {t: 0.5}\n";
    let recipe = read(text);
    let slices: Vec<_> =
        recipe.slices.iter().map(|slice| (slice.primary, slice.secondary)).collect();
    assert_eq!(slices, [((0, 4), (4, 8)), ((6, 8), (1, 3))]);
    assert!(recipe.slices[0].filters.is_empty());
    assert_eq!(shown(&recipe.slices[1].filters), ["mlp=0"]);
    assert_eq!(shown(&recipe.child.schedule.filters), ["*=0.5"]);
    assert!(recipe.flags().is_none() && recipe.entry().is_none());
}

#[test]
fn a_base_that_is_not_listed_is_one_of_the_two() {
    let text = "models: [{model: b}]\nbase_model: a\nmerge_method: slerp\nparameters: {t: 1}\n";
    assert_eq!(read(text).primary, Path::new("a"));
    let linear = "merge_method: linear\nmodels: [{model: b, parameters: {weight: 1}}, \
        {model: a, parameters: {weight: 3}}]\n";
    let recipe = read(linear);
    assert_eq!(
        (recipe.primary.as_path(), recipe.child.schedule.number()),
        (Path::new("b"), Some(0.75))
    );
    assert_eq!(recipe.notes.len(), 1);
    let recipe = read(&format!("{linear}base_model: a\nparameters: {{normalize: true}}\n"));
    assert_eq!(
        (recipe.primary.as_path(), recipe.child.schedule.number()),
        (Path::new("a"), Some(0.25))
    );
}

#[test]
fn dtypes_and_tokenizers_are_those_of_mergekit() {
    let with = |more: &str| read(&format!("{MODELS}{HALF}{more}"));
    assert_eq!(with("dtype: float32\nout_dtype: float16\n").dtype, Some(DType::Float16));
    assert_eq!(with("dtype: null\n").dtype, None);
    assert_eq!(with("tokenizer_source: base\n").vocab, Some(VocabMode::Primary));
    assert_eq!(with("tokenizer: {source: base}\n").vocab, Some(VocabMode::Primary));
    assert_eq!(with("chat_template: auto\n").notes.len(), 1);
}

#[test]
fn unknown_keys_are_refused_at_every_level_with_line_and_place() {
    for (text, said) in [
        (format!("{MODELS}{HALF}fancy: 1\n"), "line 7: `fancy` is not supported"),
        (MODELS.replace("- model: a", "- {model: a, x: 1}") + HALF, "line 2: `models[0].x`"),
        (
            format!("{MODELS}parameters: {{t: 1, int8_mask: true}}\n"),
            "line 6: `parameters.int8_mask`",
        ),
        (USUAL.replace("filter: mlp", "filtre: mlp"), "line 13: `parameters.t[1].filtre`"),
        (
            USUAL.replace("layer_range: [0, 32]\n      - model", "layers: 3\n      - model"),
            "line 4: `slices[0].sources[0].layers`",
        ),
        (
            USUAL.replace("  - sources:", "  - residual_weight: 1\n    sources:"),
            "line 2: `slices[0].residual_weight`",
        ),
        (
            USUAL.replace(
                "base_model: org/b\n",
                "base_model: org/b\ntokenizer: {source: base, tokens: {}}\n",
            ),
            "line 9: `tokenizer.tokens`",
        ),
    ] {
        let found = refused(&text);
        assert!(found.contains(said), "{said}: {found}");
    }
}

#[test]
fn a_recipe_is_a_file_of_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("good.yml"), format!("\u{feff}{}", USUAL.replace('\n', "\r\n"))).unwrap();
    let recipe = Recipe::read(&path("good.yml")).unwrap();
    assert_eq!(recipe.child.name, "good");
    assert_eq!(Recipe::parse(USUAL, "good").unwrap(), recipe);
    std::fs::write(path("bytes.yml"), b"a: \xff").unwrap();
    std::fs::write(path("long.yml"), "a".repeat((1 << 20) + 1)).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), rustix::fs::Mode::RWXU).unwrap();
    for (name, kind) in [
        ("bytes.yml", Kind::Usage),
        ("long.yml", Kind::Usage),
        ("gone.yml", Kind::NoInput),
        ("pipe", Kind::NoInput),
        (".", Kind::NoInput),
    ] {
        assert_eq!(Recipe::read(&path(name)).unwrap_err().kind(), kind, "{name}");
    }
}

#[test]
fn what_has_another_meaning_than_ours_is_refused_by_name() {
    let models = |text: &str| format!("{}{text}", MODELS.replace("merge_method: slerp\n", ""));
    for (text, said) in [
        (models("merge_method: dare_ties\n"), "line 5: `merge_method` is `dare_ties`"),
        (models(HALF), "`merge_method` is missing"),
        (format!("{MODELS}{HALF}").replace("base_model: a\n", ""), "`base_model` is missing"),
        (
            format!("{MODELS}{HALF}").replace("base_model: a", "base_model: c"),
            "line 3: a third model",
        ),
        (format!("{MODELS}{HALF}").replace("- model: b", "- model: a"), "only one model"),
        (MODELS.to_owned(), "nothing says what t is"),
        (format!("{MODELS}parameters: {{t: 2}}\n"), "line 6: `parameters.t` is wrong"),
        (
            format!("{MODELS}parameters: {{t: [0, 1.5]}}\n"),
            "`parameters.t[1]` is wrong: expected a number in 0..=1, found `1.5`",
        ),
        (
            MODELS.replace("- model: a", "- {model: a, parameters: {t: 0.5}}"),
            "is not read by mergekit's slerp",
        ),
        (USUAL.replacen("[0, 32]", "[0, 31]", 1), "have not as many layers"),
        (USUAL.replace("[0, 32]", "[8, 8]"), "has no layers"),
        (USUAL.replacen("[0, 32]", "[-1, 31]", 1), "a whole number"),
        (USUAL.replace("- model: org/b", "- model: org/a"), "a slice needs both models"),
        (MODELS.replace("model: b", "model: b+lora") + HALF, "without an adapter"),
        (
            MODELS.replace("  - model: a\n", "  - model: {path: a}\n") + HALF,
            "`models[0].model` is wrong",
        ),
        (format!("{MODELS}{HALF}modules: {{}}\n"), "`modules` is not supported"),
        (format!("{MODELS}{HALF}slices: []\n"), "stands beside `models`"),
        (format!("{MODELS}{HALF}dtype: int8\n"), "float16, bfloat16, float32"),
        (format!("{MODELS}{HALF}tokenizer_source: org/c\n"), "base"),
        (format!("{MODELS}{HALF}chat_template: chatml\n"), "`chat_template` is wrong"),
        ("- a\n- b\n".to_owned(), "no recipe"),
        ("a: [1\n".to_owned(), "no YAML"),
        (
            "merge_method: linear\nmodels: [{model: a}, {model: b}]\n".to_owned(),
            "`weight` of a model is missing",
        ),
    ] {
        let found = refused(&text);
        assert!(found.contains(said), "{said}: {found}");
    }
}

//! Recipes for mergekit: what is made of one, and what is refused. The children themselves are held
//! against mergekit's by `scripts/conformance.sh`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::batch::results;
use crate::midway::{parents, tool_in};
use crate::support::{child_bytes, fixture, listing, parent_bytes, snapshot};

/// Writes a recipe into `dir`.
fn recipe(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path
}

fn slerp(rest: &str) -> String {
    format!("merge_method: slerp\nbase_model: a\n{rest}")
}

const MODELS: &str = "models: [{model: b}, {model: a}]\n";

/// Two Llamas of two layers and one length of vocabulary, as `a` and `b` in a directory.
fn llamas() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, t) in [("a", "0"), ("b", "1")] {
        let words = [fixture("llama/primary"), fixture("llama/secondary")];
        let [primary, secondary] = words.each_ref().map(|path| path.to_str().unwrap());
        tool_in(dir.path(), &["merge", primary, secondary, "-o", name, "-t", t, "--no-fsync"])
            .success();
    }
    dir
}

#[test]
fn a_recipe_and_the_flags_that_it_is_shown_as_make_one_child() {
    let dir = tempfile::tempdir().unwrap();
    parents(dir.path());
    let text = format!(
        "{}{MODELS}parameters: {{t: [{{filter: layer.1, value: [0, 1, 0.5]}}, {{value: 0.3}}]}}\ndtype: float32\n",
        slerp("")
    );
    recipe(dir.path(), "my recipe.yml", &text);
    let words = ["merge", "--recipe", "my recipe.yml", "-o", "{name} child", "--no-fsync"];
    tool_in(dir.path(), &words).success();
    let shown = tool_in(dir.path(), &["recipe", "show", "my recipe.yml"]).success().stdout;
    let line =
        shown.lines().find(|line| line.trim_start().starts_with("llm-slerp-merge merge")).unwrap();
    let line = line.trim().replace("llm-slerp-merge", env!("CARGO_BIN_EXE_llm-slerp-merge"));
    let script = format!("{} --no-fsync", line.replace(" OUT", " flags"));
    let run =
        std::process::Command::new("sh").args(["-c", &script]).current_dir(dir.path()).output();
    assert!(run.unwrap().status.success(), "{script}");
    assert!(snapshot(&dir.path().join("my recipe child")) == snapshot(&dir.path().join("flags")));
    // And as a manifest, to which an output is added.
    let shown = tool_in(dir.path(), &["recipe", "show", "my recipe.yml", "--json"]).success();
    let mut manifest: Value = shown.json();
    manifest["merges"][0]["output"] = json!("by-manifest");
    fs::write(dir.path().join("m.json"), manifest.to_string()).unwrap();
    tool_in(dir.path(), &["batch", "m.json"]).success();
    assert!(snapshot(&dir.path().join("by-manifest")) == snapshot(&dir.path().join("flags")));
    let table = tool_in(dir.path(), &["plan", "--recipe", "my recipe.yml"]).success().stdout;
    assert!(table.contains("  0.3  "), "{table}");
}

#[test]
fn slices_are_layers_of_the_whole_merge_under_new_numbers() {
    let dir = llamas();
    let at =
        |model: &str, from: u64| format!("{{model: {model}, layer_range: [{from}, {}]}}", from + 1);
    let slice =
        |a: u64, b: u64, more: &str| format!("- sources: [{}, {}]\n{more}", at("b", b), at("a", a));
    let text = slerp(&format!(
        "slices:\n{}{}{}parameters: {{t: 0.3}}\n",
        slice(1, 1, ""),
        slice(0, 0, "  parameters: {t: 0}\n"),
        slice(1, 0, "  parameters: {t: [0.4, 1]}\n"),
    ));
    recipe(dir.path(), "x.yml", &text);
    let run =
        tool_in(dir.path(), &["merge", "--recipe", "x.yml", "-o", "child", "--no-fsync"]).success();
    tool_in(dir.path(), &["merge", "a", "b", "-t", "0.3", "-o", "whole", "--no-fsync"]).success();
    let (child, whole) =
        (child_bytes(&dir.path().join("child")), child_bytes(&dir.path().join("whole")));
    let (a, b) = (parent_bytes(&dir.path().join("a")), parent_bytes(&dir.path().join("b")));
    let mut layers = 0;
    for (name, bytes) in &child {
        let Some(rest) = name.strip_prefix("model.layers.") else {
            // The embedding is of the first slice; norm and head are of the last, whose list begins at 0.4.
            assert_eq!(*bytes == whole[name], name.contains("embed"), "{name}");
            continue;
        };
        let (number, rest) = rest.split_once('.').unwrap();
        layers += 1;
        let of = |layer: &str| format!("model.layers.{layer}.{rest}");
        match number {
            "0" => assert!(*bytes == whole[&of("1")], "{name}"),
            "1" => assert!(*bytes == a[&of("0")], "{name}"),
            // A layer alone stands at the end of its list: b's layer 0.
            "2" => assert!(*bytes == b[&of("0")], "{name}"),
            _ => panic!("{name}"),
        }
    }
    assert_eq!(layers, 27, "{}", run.stderr);
    let text = fs::read_to_string(dir.path().join("child/config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["num_hidden_layers"], 3);
    tool_in(dir.path(), &["verify", "child"]).success();
    let again =
        tool_in(dir.path(), &["merge", "--recipe", "x.yml", "-o", "child", "--resume"]).success();
    assert!(again.stderr.contains("complete already"), "{}", again.stderr);
    let shown = tool_in(dir.path(), &["recipe", "show", "x.yml"]).success().stdout;
    assert!(
        shown.contains("--recipe x.yml") && shown.contains("2..3 of 1..2 of the primary"),
        "{shown}"
    );
}

#[test]
fn one_slice_of_all_layers_is_the_merge_of_the_models() {
    let dir = llamas();
    let sources = "[{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 2]}]";
    let text = slerp(&format!("slices: [{{sources: {sources}}}]\nparameters: {{t: 0.5}}\n"));
    recipe(dir.path(), "x.yaml", &text);
    tool_in(dir.path(), &["merge", "--recipe", "x.yaml", "-o", "child", "--no-fsync"]).success();
    tool_in(dir.path(), &["merge", "a", "b", "-o", "plain", "--no-fsync"]).success();
    assert!(snapshot(&dir.path().join("child")) == snapshot(&dir.path().join("plain")));
    let shown = tool_in(dir.path(), &["recipe", "show", "x.yaml"]).success().stdout;
    assert!(shown.contains("merge a b -t 0.5 -o OUT"), "{shown}");
}

#[test]
fn a_batch_of_recipes_is_one_sweep_and_done_once() {
    let dir = tempfile::tempdir().unwrap();
    parents(dir.path());
    for (name, t) in [
        ("x.yml", "0.25"),
        ("y.yaml", "[0, 1]"),
        ("z.yml", "[{filter: layer.7, value: 1}, {value: 0}]"),
    ] {
        recipe(dir.path(), name, &slerp(&format!("{MODELS}parameters: {{t: {t}}}\n")));
    }
    let words = ["batch", "x.yml", "y.yaml", "z.yml", "-o", "children/{name}", "--json"];
    let first = tool_in(dir.path(), &words).success();
    assert_eq!(results(&first), ["merged"; 3]);
    assert_eq!(first.json()["jobs"][0]["sweep"], json!([0, 1, 2]));
    assert_eq!(listing(&dir.path().join("children")), ["x", "y", "z"]);
    for name in ["x.yml", "y.yaml", "z.yml"] {
        let words = ["merge", "--recipe", name, "-o", "own", "--overwrite", "--no-fsync"];
        tool_in(dir.path(), &words).success();
        let child = dir.path().join("children").join(&name[..1]);
        assert!(snapshot(&dir.path().join("own")) == snapshot(&child), "{name}");
    }
    assert_eq!(results(&tool_in(dir.path(), &words).success()), ["present"; 3]);
    // In a manifest, in which it stands beside other merges.
    let merges = json!({"defaults": {"t": 0.9, "primary": "a"}, "merges": [
        {"recipe": "x.yml", "output": "children/{name}"},
        {"secondary": "b", "output": "plain"},
    ]});
    fs::write(dir.path().join("m.json"), merges.to_string()).unwrap();
    let run = tool_in(dir.path(), &["batch", "m.json", "--json"]).success();
    assert_eq!(results(&run), ["present", "merged"]);
    for (words, said) in [
        (&["batch", "x.yml"][..], "no output is named"),
        (&["batch", "x.yml", "y.yaml", "-o", "one"], "two children have one output"),
        (&["batch", "x.yml", "m.json", "-o", "{name}"], "a manifest beside recipes"),
        (&["batch", "m.json", "-o", "{name}"], "--output stands beside a manifest"),
        (&["batch", "m.json", "m.json"], "more than one manifest"),
    ] {
        let stderr = tool_in(dir.path(), words).refused(2);
        assert!(stderr.contains(said), "{stderr}");
    }
    let merges = json!({"merges": [{"recipe": "x.yml", "t": 0.5, "output": "o"}]});
    fs::write(dir.path().join("m.json"), merges.to_string()).unwrap();
    let stderr = tool_in(dir.path(), &["batch", "m.json"]).refused(2);
    assert!(stderr.contains("merges[0].t stands beside `recipe`"), "{stderr}");
}

#[test]
fn recipes_that_are_not_understood_are_usage_errors_and_nothing_is_made() {
    let dir = llamas();
    let range = |to: u64| {
        let source = |model: &str| format!("{{model: {model}, layer_range: [0, {to}]}}");
        let sources = format!("[{}, {}]", source("a"), source("b"));
        slerp(&format!("slices: [{{sources: {sources}}}]\nparameters: {{t: 0.5}}\n"))
    };
    let bomb: String =
        std::iter::once("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned())
            .chain((1..60).map(|n| {
                format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", "))
            }))
            .collect();
    for (text, said) in [
        (slerp(&format!("{MODELS}parameters: {{t: 0.5}}\nx: 1\n")), "line 5: `x` is not supported"),
        (format!("merge_method: dare_ties\nbase_model: a\n{MODELS}"), "`dare_ties`"),
        (
            slerp("models: [{model: a}, {model: b}, {model: c}]\nparameters: {t: 0.5}\n"),
            "a third model",
        ),
        (slerp(MODELS), "nothing says what t is"),
        (
            slerp(&format!("{MODELS}parameters: {{t: [{{filter: mlp, value: 1}}]}}\n")),
            "nothing says what t of a tensor is",
        ),
        (
            slerp(&format!("{MODELS}parameters: {{t: 2}}\n")),
            "expected a number in 0..=1, found `2`",
        ),
        (range(3), "layer_range goes beyond the model"),
        (range(0), "has no layers"),
        ("a: [\n".to_owned(), "no YAML"),
        (bomb, "more than 100000 nodes"),
    ] {
        let path = recipe(dir.path(), "x.yml", &text);
        let started = Instant::now();
        let stderr = tool_in(dir.path(), &["merge", "--recipe", "x.yml", "-o", "child"]).refused(2);
        assert!(stderr.contains(said), "{said}: {stderr}");
        assert!(started.elapsed() < Duration::from_secs(10), "{said}");
        if stderr.contains("line ") {
            assert!(stderr.contains(path.file_name().unwrap().to_str().unwrap()), "{stderr}");
        }
    }
    assert_eq!(listing(dir.path()), ["a", "b", "x.yml"]);
    let gone = tool_in(dir.path(), &["merge", "--recipe", "gone.yml", "-o", "child"]);
    gone.refused(66);
    let twice = slerp(&format!("{MODELS}parameters: {{t: 0.5}}\ndtype: float16\n"));
    recipe(dir.path(), "x.yml", &twice);
    let words = ["merge", "--recipe", "x.yml", "-o", "child", "--dtype", "float32"];
    let stderr = tool_in(dir.path(), &words).refused(2);
    assert!(stderr.contains("--dtype stands beside a recipe"), "{stderr}");
}

#[test]
fn a_tokenizer_source_is_a_vocabulary_by_word() {
    let dir = llamas();
    tool_in(dir.path(), &["merge", "a", "b", "-o", "plain", "--no-fsync"]).success();
    for (source, mode) in [("union", "union"), ("base", "primary")] {
        let text = slerp(&format!("{MODELS}parameters: {{t: 0.5}}\ntokenizer_source: {source}\n"));
        recipe(dir.path(), "x.yml", &text);
        // The same words in the same rows: nothing moves.
        let out = format!("child-{source}");
        let words = ["merge", "--recipe", "x.yml", "-o", &out, "--no-fsync"];
        tool_in(dir.path(), &words).success();
        let [child, plain] = [&out, "plain"].map(|name| child_bytes(&dir.path().join(name)));
        assert!(child == plain, "{source}");
        let shown = tool_in(dir.path(), &["recipe", "show", "x.yml"]).success().stdout;
        assert!(shown.contains(&format!("--vocab {mode} --extend inherit")), "{shown}");
        let stderr = tool_in(dir.path(), &[&words[..], &["--vocab", "rows"]].concat()).refused(2);
        assert!(stderr.contains("--vocab stands beside a recipe"), "{stderr}");
    }
}

//! Names behind wrappers and prefixes, old spellings, too much unpaired.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use llm_slerp_merge::checkpoint::Checkpoint;
use llm_slerp_merge::merge::{MergeOptions, plan, unsure};
use serde_json::Value;

use crate::build::Dict;
use crate::support::{child_bytes, fixture, merge, own_reader, tool, torch_file};
use crate::ulp::distance;

fn parent(name: &str) -> PathBuf {
    fixture("wild/names").join(name)
}

fn llama(name: &str) -> PathBuf {
    fixture("wild/llama").join(name)
}

fn order(path: &Path) -> Vec<String> {
    own_reader(path).into_iter().map(|(name, _, _)| name).collect()
}

#[test]
fn wrapped_names_make_the_child_of_the_plain_pair() {
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name);
    merge(&llama("a"), &llama("b"), &out("plain"), &[]).success();
    let plain = child_bytes(&out("plain"));
    for (name, words) in [
        ("orig_mod", "the secondary's without `_orig_mod`"),
        ("module_orig_mod", "the secondary's without `_orig_mod` and `module`"),
        ("model_orig_mod", "the secondary's without `_orig_mod`, the secondary's without `model.`"),
        ("fsdp", "the secondary's without `_checkpoint_wrapped_module` and `_fsdp_wrapped_module`"),
    ] {
        let run = merge(&llama("a"), &parent(name), &out(name), &[]).success();
        let said = format!("warning: names were matched by reading {words}; the child has ");
        assert!(run.stderr.contains(&said), "{name}: {}", run.stderr);
        assert!(child_bytes(&out(name)) == plain, "{name}");
        assert_eq!(order(&out(name)), order(&llama("a")), "{name}");
        let union = format!("{name}-union");
        merge(&llama("a"), &parent(name), &out(&union), &["--missing", "union"]).success();
        assert!(child_bytes(&out(&union)) == plain, "{union}");
    }
}

#[test]
fn the_child_of_a_wrapped_primary_has_plain_names() {
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name);
    for (primary, secondary) in [("a_wrapped", "b"), ("a_wrapped", "orig_mod")] {
        let secondary = if secondary == "b" { llama("b") } else { parent(secondary) };
        let child = out(&secondary.file_name().unwrap().to_string_lossy());
        merge(&parent(primary), &secondary, &child, &[]).success();
        merge(&llama("a"), &llama("b"), &out("plain"), &["--overwrite"]).success();
        assert!(child_bytes(&child) == child_bytes(&out("plain")));
        assert_eq!(order(&child), order(&llama("a")));
    }
    // Both wrapped alike.
    merge(&parent("orig_mod"), &parent("module_orig_mod"), &out("same"), &[]).success();
    assert_eq!(order(&out("same")), order(&llama("b")));
}

/// The tensors of a file written by torch, against those of a child.
fn assert_expected(child: &Path, expected: &Path) {
    let (child, expected) = (torch_file(&child.join("pytorch_model.bin")), torch_file(expected));
    assert_eq!(child.len(), expected.len());
    for (name, wanted) in &expected {
        let (_, found) = child.iter().find(|(own, _)| own == name).unwrap();
        assert!(distance(found, wanted).0 <= 1, "{name}");
    }
}

#[test]
fn a_gpt2_with_its_head_and_one_without_are_paired() {
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name);
    let (headed, bare) = (parent("gpt2_headed"), parent("gpt2_bare"));
    let run = merge(&headed, &bare, &out("headed"), &[]).success();
    assert!(
        run.stderr.contains(
            "names were matched by reading the primary's without `transformer.`; the child has the \
             primary's names"
        ),
        "{}",
        run.stderr
    );
    assert_eq!(order(&out("headed")), order(&headed));
    assert_expected(&out("headed"), &parent("gpt2_expected.bin"));

    merge(&bare, &headed, &out("bare"), &[]).success();
    assert_eq!(order(&out("bare")), order(&bare));

    // The body behind its prefix, as a model with a head has it, and no tensor twice.
    for (a, b, child) in [(&headed, &bare, "union"), (&bare, &headed, "union-back")] {
        merge(a, b, &out(child), &["--missing", "union"]).success();
        let mut names = order(&out(child));
        let mut wanted = order(&headed);
        names.sort();
        wanted.sort();
        assert_eq!(names, wanted, "{child}");
    }
    let child = child_bytes(&out("union"));
    assert!(child_bytes(&out("headed")) == child);
}

#[test]
fn old_spellings_are_paired_with_todays() {
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name);
    let (new, old) = (parent("bert_new"), parent("bert_old"));
    let run = merge(&new, &old, &out("new"), &["--missing", "error"]).success();
    let said =
        "`bert.embeddings.LayerNorm.weight` as `bert.embeddings.LayerNorm.gamma` and 7 more alike";
    assert!(run.stderr.contains(said), "{}", run.stderr);
    assert_expected(&out("new"), &parent("bert_expected.bin"));

    merge(&old, &new, &out("old"), &["--missing", "error"]).success();
    assert_eq!(order(&out("old")), order(&old));
    let (there, back) = (child_bytes(&out("new")), child_bytes(&out("old")));
    for (name, bytes) in &back {
        let name = name.replace("gamma", "weight").replace("beta", "bias");
        assert_eq!(bytes, &there[&name], "{name}");
    }
}

/// A body of one matrix of 100 elements, and what is added to it.
fn body(dir: &Path, name: &str, added: &[(&str, u64)]) -> PathBuf {
    let dict = Dict::new().noise("model.layers.0.mlp.weight", &[10, 10], 1);
    let dict = added.iter().fold(dict, |dict, (name, size)| dict.noise(name, &[*size], 2));
    dict.bare(dir, name)
}

#[test]
fn more_than_a_tenth_without_partner_is_refused_unless_the_user_decides() {
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name);
    let plain = body(dir.path(), "plain", &[]);
    let less = body(dir.path(), "less", &[("model.layers.0.extra", 10)]);
    let more = body(dir.path(), "more", &[("model.layers.0.extra", 11)]);
    for (name, a, b) in [("ours", &less, &plain), ("theirs", &plain, &less)] {
        merge(a, b, &out(name), &[]).success();
    }
    for (a, b, alone) in [
        (&more, &plain, "only in the primary `model.layers.0.extra`; only in the secondary none"),
        (&plain, &more, "only in the primary none; only in the secondary `model.layers.0.extra`"),
    ] {
        let said = merge(a, b, &out("no"), &[]).refused(65);
        let what = "error: too many tensors have no partner in the other parent: ";
        assert!(said.starts_with(what) && said.contains(alone), "{said}");
        assert!(said.contains("11 % of them alone") && said.contains("--missing union"), "{said}");
        assert!(!out("no").exists());
    }
    for word in ["primary", "union"] {
        merge(&plain, &more, &out(word), &["--missing", word]).success();
    }
    assert!(child_bytes(&out("union")).contains_key("model.layers.0.extra"));
    merge(&plain, &less, &out("no"), &["--missing", "error"]).refused(65);
}

#[test]
fn heads_and_buffers_need_no_partner() {
    let dir = tempfile::tempdir().unwrap();
    let plain = body(dir.path(), "plain", &[]);
    let headed = [("lm_head.weight", 500), ("score.weight", 40), ("rotary_emb.inv_freq", 90)];
    let headed = body(dir.path(), "headed", &headed);
    merge(&plain, &headed, &dir.path().join("without"), &[]).success();
    merge(&headed, &plain, &dir.path().join("with"), &[]).success();
    assert_eq!(child_bytes(&dir.path().join("without")).len(), 1);
    assert_eq!(child_bytes(&dir.path().join("with")).len(), 4);
}

#[test]
fn two_tensors_of_one_name_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let twice = Dict::new().noise("_orig_mod.a.w", &[4], 1).noise("a.w", &[4], 2);
    let spelled =
        Dict::new().noise("a.LayerNorm.gamma", &[4], 1).noise("a.LayerNorm.weight", &[4], 2);
    let plain = Dict::new().noise("a.w", &[4], 3).bare(dir.path(), "plain");
    let norm = Dict::new().noise("a.LayerNorm.weight", &[4], 3).bare(dir.path(), "norm");
    for (dict, other, tensor) in [(twice, plain, "a.w"), (spelled, norm, "a.LayerNorm.weight")] {
        let twice = dict.bare(dir.path(), "twice");
        for (a, b) in [(&twice, &other), (&other, &twice)] {
            let said = merge(a, b, &dir.path().join("no"), &[]).refused(65);
            let words = format!("error: two tensors would get one name: {}", twice.display());
            assert!(
                said.starts_with(&words) && said.contains(&format!("both of them `{tensor}`")),
                "{said}"
            );
        }
    }
}

/// A program's word, and what it makes of a name.
type Form<'f> = (&'f str, &'f dyn Fn(&str) -> String);

/// Further names as people have them: Lightning's module, PEFT's shell, DDP around a part, a value
/// head of trl, weight norms of two torch versions.
#[test]
fn further_names_are_matched() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["model.embed_tokens.weight", "model.layers.0.mlp.weight", "lm_head.weight"];
    let dict = |seed: u64, named: &dyn Fn(&str) -> String| {
        let numbered = names.iter().zip(seed..);
        numbered.fold(Dict::new(), |dict, (name, seed)| dict.noise(&named(name), &[6, 4], seed))
    };
    let a = dict(1, &str::to_owned).bare(dir.path(), "a");
    let b = dict(9, &str::to_owned).bare(dir.path(), "b");
    merge(&a, &b, &dir.path().join("plain"), &[]).success();
    let plain = child_bytes(&dir.path().join("plain"));
    let forms: [Form<'_>; 5] = [
        ("lightning", &|name| format!("model.{name}")),
        ("fabric", &|name| format!("_forward_module.{name}")),
        ("peft", &|name| format!("base_model.model.{name}")),
        ("ddp-part", &|name| name.replace("model.", "model.module.")),
        ("compiled-block", &|name| name.replace("mlp", "mlp._orig_mod")),
    ];
    for (form, named) in forms {
        let wrapped = dict(9, named).bare(dir.path(), form);
        let out = dir.path().join(format!("{form}-child"));
        merge(&a, &wrapped, &out, &[]).success();
        assert!(child_bytes(&out) == plain, "{form}");
        let primary = dict(1, named).bare(dir.path(), form);
        let out = dir.path().join(format!("{form}-back"));
        merge(&primary, &b, &out, &[]).success();
        assert!(child_bytes(&out) == plain, "{form} as the primary");
        // `find` gives them one letter.
        let found = tool(["find".as_ref(), a.as_os_str(), primary.as_os_str(), b.as_os_str()]);
        assert!(found.success().stdout.contains("A: 3 models, 3 pairs"), "{form}");
    }
    let valued = dict(9, &str::to_owned).noise("v_head.summary.weight", &[1, 4], 5);
    let valued = valued.bare(dir.path(), "valued");
    merge(&a, &valued, &dir.path().join("v"), &[]).success();
    assert!(child_bytes(&dir.path().join("v")) == plain);

    let old = Dict::new().noise("c.weight_g", &[4, 1], 1).noise("c.weight_v", &[4, 3], 2);
    let new = "c.parametrizations.weight.original";
    let new =
        Dict::new().noise(&format!("{new}0"), &[4, 1], 3).noise(&format!("{new}1"), &[4, 3], 4);
    let (old, new) = (old.bare(dir.path(), "old"), new.bare(dir.path(), "new"));
    merge(&old, &new, &dir.path().join("n"), &["--missing", "error"]).success();
    assert_eq!(order(&dir.path().join("n")), ["c.weight_g", "c.weight_v"]);
}

#[test]
fn half_of_a_model_is_not_taken_for_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let stack = |dict: Dict, prefix: &str| {
        (0..2)
            .fold(dict, |dict, layer| dict.noise(&format!("{prefix}layers.{layer}.w"), &[6, 4], 1))
    };
    let both = stack(stack(Dict::new(), "encoder."), "decoder.").bare(dir.path(), "both");
    let one = stack(Dict::new(), "").bare(dir.path(), "one");
    for (a, b) in [(&both, &one), (&one, &both)] {
        let said = merge(a, b, &dir.path().join("no"), &[]).refused(65);
        assert!(said.contains("no tensor in common"), "{said}");
    }
    let found = tool(["find".as_ref(), dir.path().as_os_str()]).success();
    assert!(found.stdout.contains("no two fit each other"), "{}", found.stdout);
}

/// Over all inputs of these tests: two models have one letter exactly where merge takes them in either
/// order, and are named as a pair exactly where it takes them in one.
#[test]
fn find_and_merge_agree() {
    let all = tool(["find".as_ref(), fixture("wild").as_os_str(), "--json".as_ref()]).success();
    let all = all.json();
    let path = |value: &Value| PathBuf::from(value.as_str().unwrap());
    let places: Vec<PathBuf> =
        all["models"].as_array().unwrap().iter().map(|model| path(&model["path"])).collect();
    let groups: Vec<HashSet<PathBuf>> = all["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["models"].as_array().unwrap().iter().map(path).collect())
        .collect();
    let open = |place: &PathBuf| {
        let mut model = Checkpoint::open(place).ok()?;
        model.compare(&unsure(&model)).ok()?;
        Some(model)
    };
    let models: Vec<Option<Checkpoint>> = places.iter().map(open).collect();
    let takes = |a: usize, b: usize| match (&models[a], &models[b]) {
        (Some(a), Some(b)) => plan(a, b, &MergeOptions::default()).is_ok(),
        _ => false,
    };
    let pairs = all["one_way"].as_array().unwrap().iter();
    let one_way: HashSet<(PathBuf, PathBuf)> =
        pairs.map(|pair| (path(&pair["primary"]), path(&pair["secondary"]))).collect();
    let in_this_order = |a: &PathBuf, b: &PathBuf| one_way.contains(&(a.clone(), b.clone()));
    let mut fitting = 0;
    for (a, b) in (0..places.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
        let [ours, theirs] = [&places[a], &places[b]];
        let letter = groups.iter().any(|group| group.contains(ours) && group.contains(theirs));
        let there_and_back = (takes(a, b), takes(b, a));
        let told = (in_this_order(ours, theirs), in_this_order(theirs, ours));
        let told = if letter { (true, true) } else { told };
        assert_eq!(there_and_back, told, "{} {}", ours.display(), theirs.display());
        fitting += usize::from(letter);
    }
    assert!(fitting > 20, "{fitting} pairs");
}

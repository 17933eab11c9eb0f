//! Output heads that are the embedding, however they are stored.

use std::fs;
use std::path::{Path, PathBuf};

use llm_slerp_merge::checkpoint::Checkpoint;
use tch::{Kind, Tensor};

use crate::build::Dict;
use crate::support::{Loaded, Run, fixture, fixture_json, merge, snapshot, tool, torch_model};
use crate::ulp::distance;

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

fn parent(name: &str) -> PathBuf {
    fixture("wild/ties").join(name)
}

/// What the tool says of a merge that it makes.
fn merged(a: &str, b: &str, out: &Path, options: &[&str]) -> String {
    merge(&parent(a), &parent(b), out, options).success().stderr
}

/// Whether these names of a model are one tensor in its file.
fn are_one(dir: &Path, names: &[&str]) -> bool {
    let inventory = Checkpoint::open(dir).unwrap().inventory;
    let tensors: Vec<_> = names.iter().map(|name| inventory.find(name).unwrap()).collect();
    tensors.windows(2).all(|pair| inventory.tied(pair[0], pair[1]))
}

/// What numpy made of a tensor, in float64.
fn expected(key: &str) -> Loaded {
    let bits: Vec<i16> =
        serde_json::from_value(fixture_json("wild/ties/expected.json")[key].clone()).unwrap();
    let tensor = Tensor::from_slice(&bits).view_dtype(Kind::Half).reshape([-1, 16]);
    Loaded::of(&tensor)
}

/// Weights and config of a child: all but the provenance, which has paths.
fn child(dir: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let mut files = snapshot(dir);
    files.remove(Path::new("slerp_merge.json"));
    files
}

#[test]
fn a_head_that_is_the_embedding_is_one_tensor_of_the_child() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = None;
    for a in ["a-view", "a-clone"] {
        for b in ["b-clone", "b-none", "b-legacy-clone"] {
            let out = dir.path().join(format!("{a}.{b}"));
            let said = merged(a, b, &out, &[]);
            assert!(said.contains(", 1 tied") && !said.contains("copied from"), "{a} {b}: {said}");
            assert!(!said.contains(HEAD), "{a} {b}: {said}");
            assert!(are_one(&out, &[EMBEDDING, HEAD]), "{a} {b}");
            let child = child(&out);
            assert_eq!(first.get_or_insert_with(|| child.clone()), &child, "{a} {b}");
        }
    }
    let loaded = torch_model(&dir.path().join("a-clone.b-none"));
    assert!(distance(&loaded[EMBEDDING], &expected("tied")).0 <= 1);
    assert_eq!(loaded[HEAD], loaded[EMBEDDING]);
}

#[test]
fn a_primary_without_a_head_has_a_child_without_one_unless_the_union_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let tied = dir.path().join("tied");
    merged("a-view", "b-clone", &tied, &[]);
    let with = torch_model(&tied);
    for (name, options) in [("plain", &[][..]), ("error", &["--missing", "error"])] {
        let out = dir.path().join(name);
        let said = merged("a-none", "b-clone", &out, options);
        assert!(!said.contains(HEAD), "{said}");
        let mut wanted = with.clone();
        wanted.remove(HEAD);
        assert_eq!(torch_model(&out), wanted);
    }
    let union = dir.path().join("union");
    merged("a-none", "b-clone", &union, &["--missing", "union"]);
    assert_eq!(torch_model(&union), with);
    assert!(are_one(&union, &[EMBEDDING, HEAD]));
}

#[test]
fn the_plan_says_tied_and_not_copied() {
    let paths = [parent("a-clone"), parent("b-none")];
    let [a, b] = paths.each_ref().map(|path| path.to_str().unwrap());
    let Run { stdout, stderr, .. } = tool(["plan", a, b]).success();
    let line = stdout.lines().find(|line| line.starts_with(HEAD)).unwrap();
    assert!(line.contains("tied to model.embed_tokens.weight"), "{stdout}");
    assert!(!stderr.contains("copied"), "{stderr}");
}

#[test]
fn a_head_that_differs_from_its_embedding_is_merged_as_what_it_is_with_a_note() {
    let dir = tempfile::tempdir().unwrap();
    let (plain, noted) = (dir.path().join("plain"), dir.path().join("noted"));
    merged("own", "own", &plain, &[]);
    let said = merged("own-tied-in-config", "own", &noted, &[]);
    let note = "warning: `lm_head.weight` of the primary has other values than \
                `model.embed_tokens.weight`, though its config.json ties them; taken as it is, but \
                programs that follow config.json read the embedding in its place";
    assert!(said.contains(note), "{said}");
    assert_eq!(torch_model(&noted), torch_model(&plain));
    assert!(!are_one(&noted, &[EMBEDDING, HEAD]));
}

#[test]
fn a_head_of_its_own_is_merged_with_the_embedding_that_the_secondary_has_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    for b in ["b-clone", "b-none", "b-legacy-clone"] {
        let out = dir.path().join(b);
        let said = merged("own", b, &out, &[]);
        let note = "are tensors of their own in the primary and one in the secondary; each is merged \
                    with the secondary's `model.embed_tokens.weight`";
        assert!(said.contains(note) && !said.contains("copied from"), "{said}");
        let loaded = torch_model(&out);
        for (name, key) in
            [(HEAD, "own head, tied secondary"), (EMBEDDING, "own embedding, tied secondary")]
        {
            assert!(distance(&loaded[name], &expected(key)).0 <= 1, "{b} {name}");
        }
    }
}

#[test]
fn a_secondarys_own_head_is_not_lost_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("child");
    for (a, b) in [("a-view", "own"), ("a-clone", "own"), ("a-clone", "own-tied-in-config")] {
        let said = merge(&parent(a), &parent(b), &out, &[]).refused(65);
        assert!(said.contains("two tensors of the secondary are one in the primary"), "{said}");
        assert!(said.contains("`lm_head.weight`: expected the values of"), "{said}");
        assert!(said.contains("hint: make this parent the primary"), "{said}");
    }
    let said = merge(&parent("a-none"), &parent("own"), &out, &[]).refused(65);
    assert!(said.contains("the output head is the embedding in the primary only"), "{said}");
    // Both ways on that the hint names.
    let turned = dir.path().join("turned");
    merged("own", "a-view", &turned, &[]);
    let said = merged("a-view", "own", &out, &["--force-config"]);
    assert!(said.contains("the secondary's `lm_head.weight` is not used"), "{said}");
    assert!(are_one(&out, &[EMBEDDING, HEAD]));
    assert_eq!(torch_model(&out)[EMBEDDING], torch_model(&turned)[EMBEDDING]);
}

#[test]
fn a_short_vocabulary_is_extended_as_one_with_its_head() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("child");
    let said = merged("a-clone", "b-long-clone", &out, &["--extend", "inherit"]);
    assert!(said.contains("4 vocabulary rows added") && !said.contains(HEAD), "{said}");
    assert!(are_one(&out, &[EMBEDDING, HEAD]));
    let config = fs::read_to_string(out.join("config.json")).unwrap();
    assert!(config.contains("\"vocab_size\": 20"), "{config}");
    assert!(distance(&torch_model(&out)[HEAD], &expected("extended")).0 <= 1);
}

#[test]
fn gpt2_needs_no_word_in_its_config() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["transformer.wte.weight", HEAD];
    let mut children = Vec::new();
    for b in ["gpt2-none", "gpt2-clone"] {
        let out = dir.path().join(b);
        let said = merged("gpt2-view", b, &out, &[]);
        assert!(!said.contains(HEAD), "{said}");
        assert!(are_one(&out, &names));
        children.push(child(&out));
    }
    assert_eq!(children[0], children[1]);
    // As the primary: OpenAI's file has no head, and a clone stays one with its embedding.
    let out = dir.path().join("none");
    assert!(!merged("gpt2-none", "gpt2-view", &out, &[]).contains(HEAD));
    assert!(!torch_model(&out).contains_key(HEAD));
    let out = dir.path().join("clone");
    merged("gpt2-clone", "gpt2-view", &out, &[]);
    assert!(are_one(&out, &names));
}

#[test]
fn the_embeddings_of_t5_are_one_whichever_of_them_a_file_has() {
    let dir = tempfile::tempdir().unwrap();
    let names =
        ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", HEAD];
    let out = dir.path().join("child");
    assert!(!merged("t5", "t5-shared", &out, &[]).contains("warning"));
    assert!(are_one(&out, &names));
    // The other way round, the child has the primary's names.
    let turned = dir.path().join("turned");
    assert!(!merged("t5-shared", "t5", &turned, &[]).contains("warning"));
    let (child, turned) = (torch_model(&out), torch_model(&turned));
    assert!(names[1..].iter().all(|name| !turned.contains_key(*name)));
    assert!(distance(&child[names[0]], &turned[names[0]]).0 <= 1);
}

#[test]
fn names_that_are_one_only_in_the_primary_are_refused_whatever_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let one = Dict::new().noise("a.weight", &[4, 4], 1).tied("b.weight", "a.weight");
    let a = one.model(dir.path(), "a", "{}");
    let two = Dict::new().noise("a.weight", &[4, 4], 2).noise("b.weight", &[4, 4], 3);
    let b = two.model(dir.path(), "b", "{}");
    let out = dir.path().join("child");
    let said = merge(&a, &b, &out, &[]).refused(65);
    assert!(said.contains("`b.weight`: expected the values of `a.weight`"), "{said}");
    merge(&b, &a, &out, &[]).success();
}

#[test]
fn find_shows_whether_a_head_is_the_embedding() {
    let dirs = ["a-view", "a-clone", "a-none", "b-legacy-clone", "own", "own-tied-in-config"];
    let tied = dirs.map(|name| {
        let path = parent(name);
        let json = tool(["find", path.to_str().unwrap(), "--json"]).success().json();
        json["models"][0]["tied"].as_bool()
    });
    assert_eq!(tied, [true, true, true, true, false, false].map(Some));
}

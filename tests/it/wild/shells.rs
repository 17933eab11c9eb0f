//! Empty tensors in place of weights.

use std::path::PathBuf;

use crate::build::Dict;
use crate::support::{fixture, merge, tool, torch_model};

/// What merge, verify and find say of a parent that none of them takes, and that all say the same.
#[track_caller]
pub(super) fn refused_everywhere(parent: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = fixture(&format!("wild/{parent}"));
    let said = merge(&path, &path, &dir.path().join("child"), &[]).refused(65);
    assert!(!dir.path().join("child").exists());
    let first = said.lines().find_map(|line| line.strip_prefix("error: ")).unwrap();
    let verified = tool(["verify".as_ref(), path.as_os_str()]);
    assert_eq!(verified.code, Some(65), "{}", verified.stdout);
    assert!(verified.stdout.contains(first), "{}", verified.stdout);
    let found = tool(["find".as_ref(), path.as_os_str(), "--json".as_ref()]).success().json();
    // The path is that of the file where only the file is a candidate.
    let (what, rest) = first.split_once(": ").unwrap();
    let error = found["models"][0]["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with(what), "{error}");
    assert!(error.ends_with(rest.split_once(": ").unwrap().1), "{error}");
    assert_eq!(found["groups"].as_array().unwrap().len(), 0);
    let inspected = tool(["inspect".as_ref(), path.as_os_str()]).success().stderr;
    assert!(inspected.contains(&format!("note: this can't be merged: {first}")), "{inspected}");
    assert!(inspected.contains("hint: "), "{inspected}");
    said
}

#[test]
fn shells_are_refused_with_what_left_them_and_what_to_do() {
    for (parent, tensor, count) in [
        ("shells/all/a", "model.embed_tokens.weight", "shape [0], as in 21 of 21 tensors"),
        ("shells/matrices/a", "model.embed_tokens.weight", "shape [0], as in 16 of 21 tensors"),
        ("shells/ones/a", "model.embed_tokens.weight", "shape [1], as in 21 of 21 tensors"),
        ("shells/part", "model.layers.1.mlp.down_proj.weight", "shape [0], as in 1 of 21 tensors"),
    ] {
        let said = refused_everywhere(parent);
        for words in ["DeepSpeed ZeRO-3", "zero_to_fp32.py", count, &format!("`{tensor}`")] {
            assert!(said.contains(words), "{parent}: {said}");
        }
    }
}

#[test]
fn flat_weights_of_fsdp_are_refused_with_how_to_save_whole_ones() {
    let said = refused_everywhere("shells/flat");
    assert!(said.contains("error: these are flat weights of FSDP"), "{said}");
    assert!(said.contains("FULL_STATE_DICT"), "{said}");
}

#[test]
fn placeholders_are_merged_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| fixture(&format!("wild/shells/placeholders/{name}")));
    let out = dir.path().join("child");
    merge(&a, &b, &out, &["-t", "1"]).success();
    let child = torch_model(&out);
    assert_eq!(child["layers.0.mlp.placeholder"].shape, [0]);
    assert_eq!(child["layers.0.cache"].shape, [0, 8]);
    assert_eq!(child["layers.0.lora_A.weight"].shape, [0, 8]);
    assert_eq!(child, torch_model(&b));
    tool(["verify".as_ref(), a.as_os_str()]).success();
}

/// The primary and the secondary of one tensor each of these shapes.
fn pair_of(dir: &tempfile::TempDir, shapes: [&[u64]; 2]) -> [PathBuf; 2] {
    let whole = |seed| Dict::new().noise("embed.weight", &[8, 4], seed).noise("n.bias", &[4], seed);
    let parent =
        |name, shape: &[u64]| whole(7).noise("mix.kernel", shape, 3).bare(dir.path(), name);
    [parent("a", shapes[0]), parent("b", shapes[1])]
}

#[test]
fn a_tensor_that_is_empty_in_one_parent_only_is_a_shell_of_the_others() {
    for shapes in [[[4, 4].as_slice(), [0].as_slice()], [&[0], &[4, 4]], [&[1], &[4, 4]]] {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = pair_of(&dir, shapes);
        let said = merge(&a, &b, &dir.path().join("child"), &["--missing", "union"]).refused(65);
        for words in ["DeepSpeed ZeRO-3", "`mix.kernel`", "expected [4, 4], as in", "zero_to_fp32"]
        {
            assert!(said.contains(words), "{said}");
        }
        // Alone it may be a placeholder.
        tool(["verify".as_ref(), a.as_os_str()]).success();
    }
}

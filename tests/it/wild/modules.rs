//! sentence-transformers' modules: folders beside the weights.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use super::small_files::{files, model, plan, write};
use crate::support::merge;

const MODULES: &[u8] = br#"[{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense/"}]"#;

#[test]
fn weights_of_modules_go_along_where_both_parents_have_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let dense = |name: &str, seed, weights: &[u8]| {
        model(
            dir.path(),
            name,
            seed,
            &[
                ("modules.json", MODULES),
                ("1_Pooling/config.json", b"{}"),
                ("2_Dense/config.json", b"{}"),
                ("2_Dense/README.md", b"#"),
                ("2_Dense/pytorch_model.bin", weights),
            ],
        )
    };
    let [a, b, c] =
        [dense("a", 1, b"weights"), dense("b", 2, b"weights"), dense("c", 3, b"Weights")];
    let plain = model(dir.path(), "plain", 4, &[]);
    let child = dir.path().join("child");
    merge(&a, &b, &child, &[]).success();
    let expected = [
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/pytorch_model.bin",
        "modules.json",
    ];
    assert_eq!(files(&child), expected);
    for (other, found) in
        [(&c, "others in the secondary"), (&plain, "no such file in the secondary")]
    {
        let said = merge(&a, other, &dir.path().join("x"), &[]).refused(65);
        let words = format!("expected the same bytes in both parents, found {found}");
        assert!(
            said.contains("a module beside the model has weights that are not merged"),
            "{said}"
        );
        assert!(said.contains(&words) && said.contains("2_Dense/pytorch_model.bin"), "{said}");
        assert!(said.contains("hint: take the module's entry out of a copy"), "{said}");
    }
    // Without the entry, as the hint says.
    fs::write(a.join("modules.json"), r#"[{"path": ""}, {"path": "1_Pooling"}]"#).unwrap();
    let without = dir.path().join("without");
    merge(&a, &c, &without, &[]).success();
    assert_eq!(files(&without), ["1_Pooling/config.json", "modules.json"]);
    assert!(plan(&a, &c, &[]).contains("left behind: folders: 2_Dense"));
}

#[test]
fn modules_that_lead_elsewhere_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let plain = model(dir.path(), "plain", 1, &[]);
    write(dir.path(), "theirs/secret.json", b"{}");
    for (number, path) in ["../theirs", "/etc", "a/../../theirs", ".git"].into_iter().enumerate() {
        let modules = json!([{ "path": path }]).to_string();
        let name = format!("a{number}");
        let a = model(dir.path(), &name, 2, &[("modules.json", modules.as_bytes())]);
        let said = merge(&a, &plain, &dir.path().join("x"), &[]).refused(65);
        assert!(said.contains("modules.json is not usable"), "{said}");
    }
    let a = model(dir.path(), "linked", 2, &[("modules.json", br#"[{"path": "1_Pooling"}]"#)]);
    symlink("../theirs", a.join("1_Pooling")).unwrap();
    let said = merge(&a, &plain, &dir.path().join("x"), &[]).refused(65);
    assert!(said.contains("expected a folder, found a link or a file"), "{said}");
    assert!(!dir.path().join("x").exists());
}

#[test]
fn links_in_folders_are_followed_unless_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let plain = model(dir.path(), "plain", 1, &[]);
    write(dir.path(), "blobs/1", b"{\"linked\": 1}");
    let modules = br#"[{"path": "1_Pooling"}]"#;
    let a = model(dir.path(), "a", 2, &[("modules.json", modules)]);
    fs::create_dir(a.join("1_Pooling")).unwrap();
    symlink("../../blobs/1", a.join("1_Pooling/config.json")).unwrap();
    let child = dir.path().join("child");
    merge(&a, &plain, &child, &[]).success();
    let copied = child.join("1_Pooling/config.json");
    assert!(fs::symlink_metadata(&copied).unwrap().is_file());
    assert_eq!(fs::read(&copied).unwrap(), b"{\"linked\": 1}");
    let said = merge(&a, &plain, &dir.path().join("x"), &["--no-follow"]).refused(65);
    assert!(said.contains("a link leads out of the parent's directory"), "{said}");
    assert!(said.contains("1_Pooling/config.json"), "{said}");
    let b = model(dir.path(), "b", 2, &[]);
    fs::create_dir(b.join("additional_chat_templates")).unwrap();
    symlink("../../blobs/1", b.join("additional_chat_templates/x.jinja")).unwrap();
    let said = merge(&plain, &b, &dir.path().join("x"), &["--no-follow"]).refused(65);
    assert!(said.contains("additional_chat_templates/x.jinja"), "{said}");
}

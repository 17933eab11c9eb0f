//! Paths of every kind, and what of a parent's small files reaches the child: their content alone.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::build::Dict;
use crate::support::{command, fixture, listing, merge, run};

/// A copy of a fixture below `dir`, under a name of any bytes.
fn copy(model: &str, dir: &Path, name: &OsStr) -> PathBuf {
    let target = dir.join(name);
    fs::create_dir_all(&target).unwrap();
    for file in listing(&fixture(model)) {
        fs::copy(fixture(model).join(&file), target.join(&file)).unwrap();
    }
    target
}

#[test]
fn parents_and_children_may_have_names_of_any_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let names: [&[u8]; 6] = [
        b"n\xffo \xfe text",
        b"two\nlines",
        b"-lead",
        b"--output",
        b"\x1b[31mred",
        b"\"q\" 'x' $(y)",
    ];
    let [plain_a, plain_b] = ["llama/primary", "llama/secondary"].map(fixture);
    let golden = dir.path().join("golden");
    merge(&plain_a, &plain_b, &golden, &[]).success();
    for name in names {
        let name = OsString::from_vec(name.to_vec());
        let place = dir.path().join("place");
        let primary = copy("llama/primary", &place, &name);
        let mut child = place.join(&name).into_os_string();
        child.push(".child");
        let child = PathBuf::from(child);
        let said = merge(&primary, &plain_b, &child, &["-v"]).success().stderr;
        assert!(!said.contains('\u{1b}'), "{said:?}");
        for file in ["tokenizer.json", "config.json"] {
            let [own, other] = [&child, &golden].map(|dir| fs::read(dir.join(file)).unwrap());
            assert!(own == other, "{file} in {}", child.display());
        }
        // From inside the directory, where a name may look like an option.
        let mut verify = command();
        verify.current_dir(&place).args(["verify", "--json", "--"]).arg(child.file_name().unwrap());
        let verified = run(&mut verify).success();
        assert_eq!(verified.json()["models"][0]["whole"], true);
        fs::remove_dir_all(&place).unwrap();
    }
}

/// A path that isn't UTF-8, from the tool's JSON.
fn path_of(value: &serde_json::Value) -> OsString {
    let hex = value["hex"].as_str().unwrap();
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    OsString::from_vec((0..hex.len()).step_by(2).map(byte).collect())
}

#[test]
fn json_gives_paths_of_any_bytes_without_loss() {
    let dir = tempfile::tempdir().unwrap();
    let name = OsString::from_vec(b"n\xffo \xfe".to_vec());
    let parent = copy("llama/primary", dir.path(), &name);
    let mut child = parent.clone().into_os_string();
    child.push(".child");
    let child = PathBuf::from(child);
    let parents = [&parent, &parent].map(|path| path.as_os_str());
    let ask = |words: &[&OsStr]| run(command().args(words).args(["--json"]));
    let output = ["-o".as_ref(), child.as_os_str()];
    for step in ["plan", "merge"] {
        let words = [&[step.as_ref()], &parents[..], &output[..]].concat();
        let json = ask(&words).success().json();
        assert_eq!(path_of(&json["outputs"][0]), child, "{step}");
    }
    let text = fs::read(child.join("slerp_merge.json")).unwrap();
    let provenance: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(path_of(&provenance["primary"]["path"]), parent.canonicalize().unwrap());
    let json = ask(&["verify".as_ref(), child.as_os_str()]).success().json();
    assert_eq!(path_of(&json["models"][0]["path"]), child);
    let json = ask(&["inspect".as_ref(), child.as_os_str(), parent.as_os_str()]).success().json();
    assert_eq!(path_of(&json["models"][1]["path"]), parent);
    let json = ask(&["find".as_ref(), dir.path().as_os_str()]).success().json();
    let found = json["models"].as_array().unwrap();
    assert!(found.iter().any(|model| path_of(&model["path"]) == parent), "{json}");
    // The child is there already.
    let refused = ask(&[&["merge".as_ref()], &parents[..], &output[..]].concat());
    assert_eq!(refused.code, Some(73));
    assert_eq!(path_of(&refused.json()["error"]["file"]), child);
}

/// Deep down, where the files' absolute paths are longer than the 4,096 bytes that the kernel takes.
/// The directory's own must be shorter: libtorch's MKL ends the process where it can't be told.
#[test]
fn relative_paths_work_where_absolute_ones_are_too_long() {
    let dir = tempfile::tempdir().unwrap();
    copy("llama/primary", dir.path(), "a".as_ref());
    copy("llama/secondary", dir.path(), "b".as_ref());
    let name = "d".repeat(253);
    let words = "set -e; for n in $(seq 16); do mkdir \"$1\"; cd -P \"$1\"; done; mv \"$0/a\" \"$0/b\" .; \
                 \"$2\" merge a b -o child --no-fsync; \"$2\" verify child; \
                 \"$2\" merge a b -o \"$3\" --no-fsync";
    let mut shell = std::process::Command::new("sh");
    shell.current_dir(dir.path()).args(["-c", words]).arg(dir.path()).arg(&name);
    shell.arg(env!("CARGO_BIN_EXE_llm-slerp-merge")).arg("n".repeat(255));
    run(&mut shell).success();
}

#[test]
fn a_path_too_long_for_the_system_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    copy("llama/primary", dir.path(), "a".as_ref());
    let parent = dir.path().join("a");
    for child in ["n".repeat(256), vec!["n".repeat(250); 20].join("/")] {
        let said = merge(&parent, &parent, &dir.path().join(&child), &[]).refused(73);
        assert!(said.contains("File name too long"), "{said}");
        assert_eq!(listing(dir.path()), ["a"]);
    }
}

#[test]
fn only_the_content_of_small_files_reaches_the_child() {
    let dir = tempfile::tempdir().unwrap();
    let parent = copy("llama/primary", dir.path(), "a".as_ref());
    let tokenizer = parent.join("tokenizer.json");
    let kept = dir.path().join("elsewhere.json");
    fs::rename(&tokenizer, &kept).unwrap();
    symlink("../elsewhere.json", &tokenizer).unwrap();
    // Set-user-id and executable.
    for path in [&kept, &parent.join("generation_config.json")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o6755)).unwrap();
    }
    fs::write(parent.join("modeling_own.py"), "raise SystemExit").unwrap();
    let child = dir.path().join("child");
    merge(&parent, &parent, &child, &[]).success();
    for name in ["tokenizer.json", "generation_config.json"] {
        let meta = fs::symlink_metadata(child.join(name)).unwrap();
        assert!(meta.is_file(), "{name}");
        assert_eq!(meta.permissions().mode() & 0o7111, 0, "{name}");
    }
    assert_eq!(fs::read(child.join("tokenizer.json")).unwrap(), fs::read(&kept).unwrap());
    assert!(!child.join("modeling_own.py").exists());
}

#[test]
fn a_tokenizer_file_of_any_size_is_not_copied() {
    let dir = tempfile::tempdir().unwrap();
    let dict = Dict::new().noise("model.embed_tokens.weight", &[4, 4], 1);
    let parent = dict.model(dir.path(), "a", "{}");
    // 50 GB of hole.
    for name in ["tokenizer.model", "merges.txt", "generation_config.json"] {
        let path = parent.join(name);
        fs::File::create(&path).unwrap().set_len(50_000_000_000).unwrap();
        let child = dir.path().join("child");
        let said = merge(&parent, &parent, &child, &[]).refused(65);
        assert!(said.contains(name) && said.contains("at most"), "{said}");
        assert!(!child.exists());
        fs::remove_file(&path).unwrap();
    }
}

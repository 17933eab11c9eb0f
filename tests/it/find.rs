//! `find`, and parents by their names in the Hub's cache.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::build::{Dict, sharded};
use crate::support::{Run, child_bytes, command, fixture, listing, run_as_plain_user, tool};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A Hub cache with `org/name` in it, its files links to blobs as the Hub's client makes them.
fn hub(dir: &Path, model: &Path) -> PathBuf {
    let cache = dir.join("hub");
    let entry = cache.join("models--org--name");
    let snapshot = entry.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(entry.join("blobs")).unwrap();
    fs::create_dir_all(entry.join("refs")).unwrap();
    fs::write(entry.join("refs/main"), COMMIT).unwrap();
    for name in listing(model) {
        fs::copy(model.join(&name), entry.join("blobs").join(format!("blob-{name}"))).unwrap();
        symlink(format!("../../blobs/blob-{name}"), snapshot.join(&name)).unwrap();
    }
    cache
}

fn find(dir: &Path) -> Run {
    tool(["find".as_ref(), dir.as_os_str()])
}

/// What `find --json` says of everything below `dir`, paths from there.
fn found(dir: &Path) -> Vec<Value> {
    let run = tool(["find".as_ref(), dir.as_os_str(), "--json".as_ref()]).success();
    let models = run.json()["models"].as_array().unwrap().clone();
    let relative = |mut model: Value| {
        let path = Path::new(model["path"].as_str().unwrap()).strip_prefix(dir).unwrap();
        model["path"] = path.to_str().unwrap().into();
        model
    };
    models.into_iter().map(relative).collect()
}

fn paths(models: &[Value]) -> Vec<&str> {
    models.iter().map(|model| model["path"].as_str().unwrap()).collect()
}

fn model(width: u64) -> Dict {
    let embedding = Dict::new().noise("model.embed_tokens.weight", &[6, width], 1);
    embedding.noise("model.layers.0.mlp.weight", &[width, 2], 2)
}

#[test]
fn the_fixtures_are_found_with_their_figures_and_groups() {
    let models = found(&fixture(""));
    let by_path = |path: &str| models.iter().find(|model| model["path"] == path).unwrap();
    let llama = by_path("llama/primary");
    assert_eq!(llama["architecture"], "LlamaForCausalLM");
    assert_eq!((&llama["container"], &llama["files"]), (&"zip".into(), &4.into()));
    assert_eq!((&llama["parameters"], &llama["vocab"]), (&158_016.into(), &512.into()));
    assert_eq!((&llama["dtypes"][0], &llama["tied"]), (&"float16".into(), &false.into()));
    assert_eq!(by_path("gpt2/primary")["container"], "legacy");
    for name in ["llama", "gpt2", "neox"] {
        let [a, b] = ["primary", "secondary"].map(|p| &by_path(&format!("{name}/{p}"))["group"]);
        assert!(a.is_string() && a == b, "{name}");
    }
    assert_ne!(llama["group"], by_path("gpt2/primary")["group"]);
    let said = find(&fixture("llama")).success().stdout;
    let words = "2 models in 1 group; any two of one letter can be merged\n\
                 A: 2 models, 1 pair; vocabularies of 512 to 520 rows: the shorter of a pair is extended";
    assert!(said.contains(words), "{said}");
}

#[test]
fn what_training_leaves_behind_makes_no_noise() {
    let dir = tempfile::tempdir().unwrap();
    model(4).model(dir.path(), "checkpoint-10", r#"{"model_type": "llama"}"#);
    let inside = |name: &str| dir.path().join("checkpoint-10").join(name);
    let pickle = |entries: Dict, name: &str| entries.file(&inside(name));
    pickle(Dict::new().noise("cpu", &[16], 1), "rng_state.pth");
    pickle(Dict::new().noise("exp_avg", &[16], 1), "optimizer.pt");
    fs::write(inside("training_args.bin"), b"\x80\x02cargparse\nNamespace\n)\x81.").unwrap();
    fs::write(inside("notes.bin"), b"no checkpoint at all").unwrap();
    fs::write(inside("weights.pt"), b"\x80\x02}q\x00.").unwrap();
    fs::write(inside("vocab.txt"), b"a").unwrap();
    fs::create_dir_all(dir.path().join(".child.partial")).unwrap();
    model(4).file(&dir.path().join(".child.partial/pytorch_model.bin"));
    let models = found(dir.path());
    assert_eq!(paths(&models), ["checkpoint-10"]);
    assert_eq!(models[0]["architecture"], "llama");
}

#[test]
fn loose_files_are_found_by_content_and_adapters_told_from_models() {
    let dir = tempfile::tempdir().unwrap();
    model(4).file(&dir.path().join("a.pt"));
    model(4).file(&dir.path().join("b.ckpt"));
    fs::create_dir(dir.path().join("lora")).unwrap();
    let name = "base_model.model.model.layers.0.mlp.lora_A.weight";
    Dict::new().noise(name, &[2, 4], 1).file(&dir.path().join("lora/adapter_model.bin"));
    let models = found(dir.path());
    assert_eq!(paths(&models), ["a.pt", "b.ckpt", "lora/adapter_model.bin"]);
    assert_eq!((&models[0]["group"], &models[1]["group"]), (&"A".into(), &"A".into()));
    assert!(models[2]["error"].as_str().unwrap().starts_with("this is a LoRA adapter"));
}

#[test]
fn broken_checkpoints_are_listed_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let cut = model(4).model(dir.path(), "cut", "{}").join("pytorch_model.bin");
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    fs::write(dir.path().join("loose.pt"), &bytes[..bytes.len() / 2]).unwrap();
    let shards = sharded(dir.path(), "shard-lost", &[model(4), Dict::new().noise("b", &[1], 1)]);
    fs::remove_file(shards.join("pytorch_model-00002-of-00002.bin")).unwrap();
    let bare = sharded(dir.path(), "index-lost", &[model(4), Dict::new().noise("b", &[1], 1)]);
    fs::remove_file(bare.join("pytorch_model.bin.index.json")).unwrap();
    fs::create_dir(dir.path().join("tensors")).unwrap();
    fs::write(dir.path().join("tensors/config.json"), "{}").unwrap();
    fs::write(dir.path().join("tensors/model.safetensors"), b"").unwrap();
    let dangling = model(4).model(dir.path(), "undone", "{}").join("pytorch_model.bin");
    fs::remove_file(&dangling).unwrap();
    symlink("../blobs/absent", &dangling).unwrap();
    let models = found(dir.path());
    let reasons: Vec<(&str, &str)> = models
        .iter()
        .map(|model| (model["path"].as_str().unwrap(), model["error"].as_str().unwrap()))
        .collect();
    let expected = [
        ("cut", "zip"),
        ("index-lost", "2 shards without their index"),
        ("loose.pt", "zip"),
        ("shard-lost", "a shard is missing"),
        ("tensors", "0 bytes"),
        ("undone", "link to a missing file"),
    ];
    assert_eq!(reasons.len(), expected.len(), "{reasons:?}");
    for ((path, reason), (expected_path, words)) in reasons.iter().zip(expected) {
        assert_eq!(*path, expected_path);
        assert!(reason.contains(words), "{path}: {reason}");
    }
    let said = find(dir.path()).success().stdout;
    assert!(said.contains("6 checkpoints can't be merged:"), "{said}");
}

#[test]
fn loops_end_and_nothing_is_found_twice() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    model(4).model(elsewhere.path(), "far", "{}");
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("x/y")).unwrap();
    model(4).model(&root.join("x"), "m", "{}");
    // To itself, to its parent, above the start, to a real directory that sorts later, and out.
    symlink("self", root.join("self")).unwrap();
    symlink("..", root.join("x/y/up")).unwrap();
    symlink(dir.path(), root.join("x/above")).unwrap();
    symlink("x/m", root.join("a-link")).unwrap();
    symlink(elsewhere.path(), root.join("out")).unwrap();
    symlink(elsewhere.path(), root.join("out-again")).unwrap();
    model(4).model(dir.path(), "beside", "{}");
    let models = found(&root);
    assert_eq!(paths(&models), ["out/far", "x/m"]);
}

#[test]
fn directories_that_cannot_be_read_are_one_warning() {
    let dir = tempfile::tempdir().unwrap();
    model(4).model(dir.path(), "m", "{}");
    for name in ["shut", "shut-too"] {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o000)).unwrap();
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = command();
    command.arg("find").arg(dir.path());
    let run = run_as_plain_user(&mut command);
    for name in ["shut", "shut-too"] {
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let Some(run) = run else { return };
    let Run { stdout: listed, stderr: said, .. } = run.success();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("warning: 2 directories can't be read and are left out: "), "{said}");
    assert!(listed.contains("1 model: no two fit each other"), "{listed}");
}

#[test]
fn nothing_below_a_directory_is_no_error_and_no_directory_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let run = find(dir.path()).success();
    assert_eq!(run.stdout, "");
    assert!(run.stderr.starts_with("no checkpoint in or below `"), "{}", run.stderr);
    let said = find(&dir.path().join("absent")).refused(66);
    assert!(said.starts_with("error: cannot look into: "), "{said}");
}

#[test]
fn a_model_of_the_hub_is_listed_and_merged_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let cache = hub(dir.path(), &fixture("llama/primary"));
    let models = found(&cache);
    assert_eq!(models.len(), 1);
    let hub = &models[0]["hub"];
    assert_eq!((&hub["repo"], &hub["revision"]), (&"org/name".into(), &COMMIT.into()));
    let with_cache = |arguments: &[&str]| {
        let mut command = command();
        command.args(arguments).env("HF_HUB_CACHE", &cache).current_dir(dir.path());
        let output = command.output().unwrap();
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        Run { code: output.status.code(), stdout, stderr }
    };
    let listed = with_cache(&["find", "hub"]).success().stdout;
    assert!(listed.contains("\norg/name@01234567  zip, 4 shards"), "{listed}");

    let secondary = fixture("llama/secondary");
    let secondary = secondary.to_str().unwrap();
    with_cache(&["merge", "org/name", secondary, "-o", "by-name", "--no-fsync"]).success();
    let pinned = format!("org/name@{COMMIT}");
    with_cache(&["merge", &pinned, secondary, "-o", "pinned", "--no-fsync"]).success();
    let primary = fixture("llama/primary");
    let path = ["merge", primary.to_str().unwrap(), secondary, "-o", "by-path", "--no-fsync"];
    with_cache(&path).success();
    let child = |name: &str| child_bytes(&dir.path().join(name));
    assert!(child("by-name") == child("by-path") && child("pinned") == child("by-path"));
    with_cache(&["inspect", "org/name"]).success();
    with_cache(&["verify", "org/name@main"]).success();
    with_cache(&["plan", "org/name@01234567", "org/name"]).success();

    let said = with_cache(&["plan", "org/absent", "org/name"]).refused(66);
    let words = "error: no such path, and not in the local Hub cache: org/absent: no \
                 `models--org--absent` in ";
    assert!(said.starts_with(words), "{said}");
    let said = with_cache(&["merge", "org/name@v2", secondary, "-o", "no"]).refused(66);
    assert!(said.contains("expected revision v2 in ") && said.contains("found 01234567"), "{said}");
    // A path wins over a name.
    fs::create_dir_all(dir.path().join("org/name")).unwrap();
    let said = with_cache(&["inspect", "org/name"]).refused(66);
    assert!(said.starts_with("error: no checkpoint in this directory: org/name"), "{said}");
}

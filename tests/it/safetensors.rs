//! Parents and children in safetensors, and models that are converted.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::build::Dict;
use crate::midway::{Midway, parents, tool_in};
use crate::support::{Run, fixture, listing, merge, own_reader, parent_bytes, snapshot, tool};

const MODEL: &str = "model.safetensors";

/// `convert MODEL -o OUT` with more options, without flushing.
fn convert(model: &Path, out: &Path, options: &[&str]) -> Run {
    let paths = ["convert".as_ref(), model.as_os_str(), "-o".as_ref(), out.as_os_str()];
    let options = options.iter().map(std::ffi::OsStr::new);
    tool(paths.into_iter().chain(options).chain(["--no-fsync".as_ref()]))
}

/// A model of two tensors and its config, in `.bin` and in safetensors.
fn both(dir: &Path, name: &str, seed: u64) -> [PathBuf; 2] {
    let dict = Dict::new().noise("model.embed_tokens.weight", &[8, 4], seed);
    let dict = dict.noise("model.layers.0.mlp.up_proj.weight", &[4, 4], seed + 1);
    let dict = dict.noise("model.norm.weight", &[4], seed + 2);
    let bin = dict.model(dir, name, r#"{"vocab_size": 8}"#);
    let safe = dir.join(format!("{name}-safe"));
    fs::create_dir(&safe).unwrap();
    dict.safetensors(&safe.join(MODEL));
    fs::copy(bin.join("config.json"), safe.join("config.json")).unwrap();
    [bin, safe]
}

/// Changes one bit in the last byte of a file, whose times then tell.
fn flip(path: &Path) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut last = [0];
    let at = file.metadata().unwrap().len() - 1;
    file.read_exact_at(&mut last, at).unwrap();
    file.write_all_at(&[last[0] ^ 1], at).unwrap();
}

#[derive(Deserialize)]
struct Saved {
    model: String,
    max_shard_size: String,
    files: BTreeMap<String, String>,
}

/// SHA-256 of the weight files of a directory.
fn hashes(dir: &Path) -> BTreeMap<String, String> {
    let weights = listing(dir).into_iter().filter(|name| name.starts_with("model"));
    let hash = |name: String| {
        let digest = Sha256::digest(fs::read(dir.join(&name)).unwrap());
        (name, digest.iter().map(|byte| format!("{byte:02x}")).collect())
    };
    weights.map(hash).collect()
}

/// tests/data/safetensors.json is what `save_pretrained` of transformers 4.57.3 wrote.
#[test]
fn a_converted_model_is_what_transformers_writes_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read(fixture("safetensors.json")).unwrap();
    let cases: Vec<Saved> = serde_json::from_slice(&text).unwrap();
    assert_eq!(cases.len(), 4);
    for (at, Saved { model, max_shard_size, files }) in cases.iter().enumerate() {
        let (source, out) = (fixture(model), dir.path().join(at.to_string()));
        let size = ["--max-shard-size", max_shard_size];
        convert(&source, &out, &[&["--format", "safetensors"], &size[..]].concat()).success();
        assert_eq!(&hashes(&out), files, "{model}");
        let (back, direct) = (dir.path().join(format!("{at}b")), dir.path().join(format!("{at}d")));
        convert(&out, &back, &[&["--format", "bin"], &size[..]].concat()).success();
        convert(&source, &direct, &size).success();
        let bin = |dir: &Path| -> BTreeMap<PathBuf, Vec<u8>> {
            let mut files = snapshot(dir);
            files.retain(|path, _| path.to_string_lossy().starts_with("pytorch_model"));
            files
        };
        // GPT-2's head is left out: it is the embedding.
        if model.starts_with("gpt2") {
            let mut names = parent_bytes(&direct);
            names.remove("lm_head.weight").unwrap();
            assert_eq!(parent_bytes(&back), names);
        } else {
            assert!(bin(&back) == bin(&direct), "{model}");
        }
        assert_eq!(
            fs::read(out.join("config.json")).unwrap(),
            fs::read(source.join("config.json")).unwrap()
        );
    }
    // The shards that transformers wrote, and those of a model converted there and back.
    let written = fixture("llama/primary");
    for (path, bytes) in snapshot(&written) {
        if path.to_string_lossy().starts_with("pytorch_model") {
            assert!(fs::read(dir.path().join("0b").join(&path)).unwrap() == bytes, "{path:?}");
        }
    }
}

#[test]
fn parents_of_either_format_give_one_child() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (both(dir.path(), "a", 1), both(dir.path(), "b", 11));
    let merged = |a: &Path, b: &Path, name: &str, format: &str| {
        let out = dir.path().join(format!("{name}-{format}"));
        merge(a, b, &out, &["--format", format]).success();
        (listing(&out), own_reader(&out))
    };
    for format in ["bin", "safetensors"] {
        let expected = merged(&a[0], &b[0], "0", format);
        let file = if format == "bin" { "pytorch_model.bin" } else { MODEL };
        assert_eq!(expected.0, ["config.json", file, "slerp_merge.json"]);
        for (at, (a, b)) in [(&a[0], &b[1]), (&a[1], &b[0]), (&a[1], &b[1])].into_iter().enumerate()
        {
            assert_eq!(merged(a, b, &(at + 1).to_string(), format), expected);
        }
    }
    // Without --format it is the primary's.
    let out = dir.path().join("auto");
    merge(&a[1], &b[0], &out, &[]).success();
    assert_eq!(listing(&out)[1], MODEL);
    let verified = tool(["verify".as_ref(), out.as_os_str()]).success().stdout;
    assert!(
        verified.contains("note: no CRC: model.safetensors: safetensors have none"),
        "{verified}"
    );
    assert!(verified.contains("CRCs not all there"), "{verified}");
    let text = tool(["inspect".as_ref(), out.as_os_str()]).success().stdout;
    assert!(text.contains("model.safetensors: safetensors, "), "{text}");
}

#[test]
fn of_both_formats_bin_is_read_and_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let ([a, _], [_, b]) = (both(dir.path(), "a", 1), both(dir.path(), "b", 11));
    fs::copy(b.join(MODEL), a.join(MODEL)).unwrap();
    let out = dir.path().join("child");
    let run = merge(&a, &b, &out, &["-t", "0"]).success();
    let note = "primary: pytorch_model.bin used; not looked at: model.safetensors";
    assert!(run.stderr.contains(note), "{}", run.stderr);
    fs::remove_file(a.join(MODEL)).unwrap();
    assert_eq!(parent_bytes(&out), parent_bytes(&a));
    // A file is taken by its name, too.
    let named = dir.path().join("named");
    merge(&b.join(MODEL), &b, &named, &["-t", "0"]).success();
    assert_eq!(parent_bytes(&named), parent_bytes(&b));
}

#[test]
fn missing_checksums_are_refused_where_they_are_required() {
    let dir = tempfile::tempdir().unwrap();
    let ([bin, safe], out) = (both(dir.path(), "a", 1), dir.path().join("child"));
    for pair in [[&bin, &safe], [&safe, &bin]] {
        let said = merge(pair[0], pair[1], &out, &["--require-checksums"]).refused(65);
        assert!(said.contains("found safetensors, which have none"), "{said}");
    }
    let said = convert(&safe, &out, &["--require-checksums"]).refused(65);
    assert!(said.contains("which have none"), "{said}");
    let run = tool(["verify".as_ref(), safe.as_os_str(), "--require-checksums".as_ref()]);
    assert_eq!(run.code, Some(65), "{}", run.stdout);
    assert!(run.stdout.contains("error: no CRC: model.safetensors"), "{}", run.stdout);
    assert!(!out.exists());
}

#[test]
fn a_flipped_bit_changes_the_child_and_a_batch_that_runs_again_sees_it() {
    let dir = tempfile::tempdir().unwrap();
    let ([_, safe], [b, _]) = (both(dir.path(), "a", 1), both(dir.path(), "b", 11));
    let manifest = dir.path().join("merges.json");
    let merges = json!([{ "primary": safe, "secondary": b, "output": "child" }]);
    fs::write(&manifest, json!({ "merges": merges }).to_string()).unwrap();
    let batch = |code: i32| {
        let run = tool(["batch".as_ref(), manifest.as_os_str(), "--json".as_ref()]);
        assert_eq!(run.code, Some(code), "{}", run.stderr);
        (run.json()["jobs"][0]["result"].as_str().unwrap().to_owned(), run.stderr)
    };
    assert_eq!(batch(0).0, "merged");
    let child = dir.path().join("child");
    let before = parent_bytes(&child);
    assert_eq!(batch(0).0, "present");
    flip(&safe.join(MODEL));
    // Nothing in the file tells.
    tool(["verify".as_ref(), safe.as_os_str()]).success();
    let (_, said) = batch(1);
    assert!(said.contains("made from another primary"), "{said}");
    let other = dir.path().join("other");
    merge(&safe, &b, &other, &[]).success();
    assert_ne!(parent_bytes(&other), before);
    // The same bytes in another file are the same parent.
    flip(&safe.join(MODEL));
    assert_eq!(batch(0).0, "present");
}

#[test]
fn an_interrupted_child_in_safetensors_is_resumed_to_the_same_bytes() {
    for format in [["--format", "safetensors"], ["--format", "bin"]] {
        let dir = tempfile::tempdir().unwrap();
        parents(dir.path());
        let options = ["-o", "child", format[0], format[1]];
        Midway::begin(dir.path(), &options, ".child.partial", 5).kill();
        let words: Vec<&str> = ["merge", "a", "b"].iter().chain(&options).copied().collect();
        // What was begun in another format is another merge.
        let other = if format[1] == "bin" { "safetensors" } else { "bin" };
        let turned = ["merge", "a", "b", "-o", "child", "--format", other, "--resume"];
        let said = tool_in(dir.path(), &turned).refused(65);
        assert!(said.contains("another merge was interrupted here"), "{said}");
        let run = tool_in(dir.path(), &[&words[..], &["--resume", "-v"]].concat()).success();
        assert!(run.stderr.contains("resuming: "), "{}", run.stderr);
        fs::rename(dir.path().join("child"), dir.path().join("resumed")).unwrap();
        tool_in(dir.path(), &words).success();
        assert!(snapshot(&dir.path().join("child")) == snapshot(&dir.path().join("resumed")));
    }
}

#[test]
fn a_conversion_changes_the_dtype_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let dict = Dict::new().f32("w", &[3], &[1.0, f64::NAN, 70_000.0]).f32("v", &[2], &[0.5, 2.0]);
    let model = dict.model(dir.path(), "model", r#"{"torch_dtype": "float32", "a": [1]}"#);
    let out = |name: &str| dir.path().join(name);
    // As it is, what is not finite too.
    convert(&model, &out("same"), &[]).success();
    assert_eq!(parent_bytes(&out("same")), parent_bytes(&model));
    assert!(
        snapshot(&out("same"))[Path::new("pytorch_model.bin")]
            == fs::read(model.join("pytorch_model.bin")).unwrap()
    );
    let said = convert(&model, &out("half"), &["--dtype", "float16"]).refused(65);
    assert!(said.contains("`w`"), "{said}");
    convert(&model, &out("half"), &["--dtype", "float16", "--allow-nonfinite"]).success();
    let half = parent_bytes(&out("half"));
    // 1, NaN and Inf; 0.5 and 2 in half precision.
    assert_eq!(half["v"], [0, 0x38, 0, 0x40]);
    assert_eq!((&half["w"][..2], &half["w"][4..]), (&[0, 0x3c][..], &[0, 0x7c][..]));
    let config: Value =
        serde_json::from_slice(&fs::read(out("half").join("config.json")).unwrap()).unwrap();
    assert_eq!(config, json!({ "torch_dtype": "float16", "a": [1] }));
    let provenance: Value =
        serde_json::from_slice(&fs::read(out("half").join("slerp_merge.json")).unwrap()).unwrap();
    assert_eq!(provenance["options"]["convert"], true);
    assert_eq!((provenance.get("t"), provenance.get("secondary")), (None, None));
    // Done already, and refused where something is there.
    let options = ["--dtype", "float16", "--allow-nonfinite"];
    convert(&model, &out("half"), &options).refused(73);
    let run = convert(&model, &out("half"), &[&options[..], &["--resume"]].concat()).success();
    assert!(run.stderr.contains("complete already"), "{}", run.stderr);
    convert(&model, &out("half"), &["--overwrite", "--format", "safetensors"]).success();
    assert_eq!(listing(&out("half")), ["config.json", MODEL, "slerp_merge.json"]);
    convert(&model, &model, &["--overwrite"]).refused(73);
}

#[test]
fn what_is_no_whole_model_is_not_converted() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = Dict::new().noise("base_model.model.q.lora_A.weight", &[4, 4], 1);
    let path = adapter.bare(dir.path(), "adapter");
    fs::write(path.join("adapter_config.json"), r#"{"peft_type": "LORA"}"#).unwrap();
    let out = dir.path().join("out");
    convert(&path, &out, &[]).refused(65);
    let shard = fixture("llama/primary/pytorch_model-00001-of-00004.bin");
    let said = convert(&shard, &out, &["--format", "safetensors"]).refused(65);
    assert!(said.contains("part of a model"), "{said}");
    // A name that safetensors can't have.
    let odd = Dict::new().noise("a\nb", &[2], 1).bare(dir.path(), "odd");
    let said = convert(&odd, &out, &["--format", "safetensors"]).refused(65);
    assert!(said.contains("a name of printable characters for safetensors"), "{said}");
    convert(&odd, &out, &[]).success();
}

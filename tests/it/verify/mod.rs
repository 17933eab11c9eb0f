//! `verify`: one line per finding, a summary, an exit code.

mod files;
mod flips;
mod suspects;

use std::fs;
use std::path::Path;
use std::process::Command;

use llm_slerp_merge::format::EmitTensor;
use llm_slerp_merge::tensor::{DType, Layout};
use serde_json::Value;

use files::{checkpoint, copy, fixture, flip, one_thread, replace, zip_again};

/// Exit code and stdout of the binary.
fn run(arguments: &[&str], models: &[&Path]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_llm-slerp-merge"))
        .arg("verify")
        .args(arguments)
        .args(models)
        .output()
        .expect("the binary");
    let text = String::from_utf8(output.stdout).expect("text");
    (output.status.code().expect("an exit code"), text)
}

/// Exit code and the model of `--json`.
fn json(model: &Path) -> (i32, Value) {
    let (code, text) = run(&["--json"], &[model]);
    let mut value: Value = serde_json::from_str(&text).expect("one JSON value");
    (code, value["models"][0].take())
}

/// What was found, as `severity what`.
fn found(model: &Value) -> Vec<String> {
    let findings = model["findings"].as_array().expect("findings").iter();
    let words = findings.map(|finding| [&finding["severity"], &finding["what"]]);
    words.map(|words| words.map(|word| word.as_str().expect("a word")).join(" ")).collect()
}

fn f16(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn a_whole_model_takes_one_line() {
    let (code, text) = run(&[], &[&fixture("llama/primary")]);
    assert_eq!(text, "whole: 21 tensors, 316.0 kB, every CRC checked, all finite\n");
    assert_eq!(code, 0);
}

#[test]
fn legacy_files_and_old_indexes_are_whole_and_say_what_was_not_checked() {
    let models = [&*fixture("gpt2/primary"), &fixture("neox/secondary")];
    let (code, text) = run(&[], &models);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(code, 0);
    assert!(lines[0].starts_with("note: no CRC: pytorch_model.bin"), "{text}");
    let ends = ["29 tensors, 250.2 kB, CRCs not all there, all finite", "34 tensors, 219.8 kB"];
    assert!(lines[1].contains(ends[0]) && lines[2].contains(ends[1]), "{text}");
    assert_eq!(lines.len(), 3);
}

#[test]
fn damage_in_two_shards_is_two_findings() {
    let model = copy("llama/primary");
    for shard in [1, 3] {
        let path = model.path().join(format!("pytorch_model-0000{shard}-of-00004.bin"));
        // In the middle, where the data is.
        let bits = fs::metadata(&path).expect("a file").len() as usize * 8;
        flip(&path, bits / 2);
    }
    let (code, value) = json(model.path());
    assert_eq!((code, &value["whole"]), (65, &Value::Bool(false)));
    assert_eq!(found(&value), ["error damaged", "error damaged"]);
    let second = &value["findings"][1];
    assert_eq!(second["file"], "pytorch_model-00003-of-00004.bin");
    assert!(second["tensors"][0].as_str().is_some_and(|name| name.starts_with("model.layers.")));
    let (_, text) = run(&[], &[model.path()]);
    assert!(text.ends_with("\nnot whole: 2 errors\n"), "{text}");
}

#[test]
fn damaged_records_beside_the_tensors_are_found() {
    let model = tempfile::tempdir().expect("a directory");
    let path = model.path().join("pytorch_model.bin");
    let file = fs::read(fixture("reader/plain.bin")).expect("a fixture");
    let records = llm_slerp_merge::format::archive_records(&file).expect("an archive");
    assert!(records.len() > 10);
    for record in records.iter().filter(|record| record.size_bytes > 0) {
        fs::write(&path, &file).expect("written");
        flip(&path, record.file_offset as usize * 8 + 3);
        let settings = one_thread();
        let verified = llm_slerp_merge::engine::verify(&path, &settings, &()).expect("looked at");
        assert!(!verified.is_whole(), "{}", record.name);
    }
}

#[test]
fn a_broken_shard_does_not_hide_what_is_behind_it() {
    let model = copy("llama/primary");
    let shard = |number| model.path().join(format!("pytorch_model-0000{number}-of-00004.bin"));
    fs::write(shard(1), b"<html>404</html>").expect("written");
    fs::remove_file(shard(2)).expect("removed");
    let bits = fs::metadata(shard(4)).expect("a file").len() as usize * 8;
    flip(&shard(4), bits / 2);
    let (code, value) = json(model.path());
    // The embedding was in the first shard.
    let words = ["error refused", "error refused", "note no_embedding", "error damaged"];
    assert_eq!(found(&value), words);
    assert_eq!(code, 65);
}

#[test]
fn a_missing_model_and_a_missing_shard_exit_as_an_input_that_is_not_there() {
    let model = copy("llama/primary");
    fs::remove_file(model.path().join("pytorch_model-00003-of-00004.bin")).expect("removed");
    let (code, value) = json(model.path());
    assert_eq!((code, found(&value)), (66, vec!["error refused".to_owned()]));
    let (code, text) = run(&[], &[&model.path().join("absent")]);
    assert_eq!(code, 66);
    assert!(text.contains("cannot open model") && text.contains("not whole: 1 error"), "{text}");
}

#[test]
fn index_and_shards_are_compared_both_ways() {
    let model = copy("llama/primary");
    let index = model.path().join("pytorch_model.bin.index.json");
    replace(&index, "model.norm.weight", "model.other.weight");
    let (code, value) = json(model.path());
    assert_eq!(found(&value), ["error unmapped", "error lacking"]);
    assert_eq!(value["findings"][0]["tensors"][0], "model.norm.weight");
    assert_eq!(value["findings"][1]["tensors"][0], "model.other.weight");
    assert_eq!(code, 65);
}

#[test]
fn a_wrong_total_size_and_stale_weights_are_warnings() {
    let model = copy("llama/primary");
    let index = model.path().join("pytorch_model.bin.index.json");
    replace(&index, "\"total_size\": ", "\"total_size\": 1");
    for stale in ["pytorch_model-00001-of-00002.bin", "model.safetensors"] {
        fs::write(model.path().join(stale), b"").expect("written");
    }
    fs::remove_file(model.path().join("config.json")).expect("removed");
    let (code, value) = json(model.path());
    let words = ["warning no_config", "warning total_size", "warning other_weights"];
    assert_eq!((code, found(&value)), (0, words.map(str::to_owned).to_vec()));
    assert_eq!(value["findings"][2]["files"].as_array().map(Vec::len), Some(2));
    let (_, text) = run(&["--quiet"], &[model.path()]);
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn vocab_size_and_token_ids_are_held_against_the_rows() {
    let model = copy("llama/primary");
    replace(&model.path().join("config.json"), "\"vocab_size\": 512", "\"vocab_size\": 511");
    fs::copy(fixture("llama/secondary/tokenizer.json"), model.path().join("tokenizer.json"))
        .expect("copied");
    let (code, value) = json(model.path());
    // The embedding and the head.
    assert_eq!(found(&value), ["error vocab_size", "error vocab_size", "error token_id"]);
    assert_eq!(
        (&value["findings"][2]["id"], &value["findings"][2]["rows"]),
        (&519.into(), &512.into())
    );
    assert_eq!(code, 65);
}

#[test]
fn every_broken_side_file_is_a_finding() {
    let model = copy("llama/primary");
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::write(model.path().join(name), b"{").expect("written");
    }
    let (code, value) = json(model.path());
    assert_eq!((code, found(&value)), (65, vec!["error refused".to_owned(); 3]));
}

/// 200,000 float16 values, of which three are not finite, and a view of one of them.
fn with_nan() -> (Vec<EmitTensor>, Vec<Vec<u8>>) {
    let mut values = vec![0x3c00u16; 200_000];
    values[70_001] = 0x7e00;
    values[70_002] = 0x7c00;
    values[199_999] = 0xfc00;
    let view = |name: &str, shape: &[u64], stride: &[u64], storage_offset| EmitTensor {
        name: name.to_owned(),
        dtype: DType::Float16,
        layout: Layout { shape: shape.to_vec(), stride: stride.to_vec(), storage_offset },
        storage: 0,
    };
    let tensors = vec![
        EmitTensor::contiguous("whole", DType::Float16, &[200, 1000], 0),
        EmitTensor::contiguous("tied", DType::Float16, &[200, 1000], 0),
        view("clean", &[10], &[1], 0),
        view("column", &[100], &[1000], 70_002 % 1000),
        EmitTensor::contiguous("other", DType::Float16, &[3], 1),
    ];
    (tensors, vec![f16(&values), f16(&[0x7bff; 3])])
}

/// Tensor, count and first index of each tensor with NaN or Inf.
fn nonfinite(model: &Value) -> Vec<(String, u64, u64)> {
    let found = model["nonfinite"].as_array().expect("a list").iter();
    let number = |value: &Value| value.as_u64().expect("a number");
    let each = found.map(|tensor| {
        let name = tensor["tensor"].as_str().expect("a name").to_owned();
        (name, number(&tensor["count"]), number(&tensor["first"]))
    });
    each.collect()
}

#[test]
fn nan_is_counted_by_tensor_however_the_bytes_are_stored() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("model.bin");
    let (tensors, storages) = with_nan();
    let file = checkpoint(&tensors, &storages);
    let same = |_: &str, bytes| bytes;
    let big = |name: &str, mut bytes: Vec<u8>| {
        if name.ends_with("/byteorder") {
            return b"big".to_vec();
        }
        if name.contains("/data/") {
            bytes.chunks_exact_mut(2).for_each(<[u8]>::reverse);
        }
        bytes
    };
    let files = [
        file.clone(),
        zip_again(&file, false, same),
        zip_again(&file, true, same),
        zip_again(&file, false, big),
        zip_again(&file, true, big),
    ];
    for (number, bytes) in files.iter().enumerate() {
        fs::write(&path, bytes).expect("written");
        let (code, value) = json(&path);
        let expected = [("whole", 3, 70_001), ("column", 1, 70)];
        let expected = expected.map(|(name, count, first)| (name.to_owned(), count, first));
        assert_eq!(nonfinite(&value), expected, "file {number}: {value}");
        assert_eq!((code, found(&value).len()), (65, 2), "file {number}");
    }
    let (_, text) = run(&[], &[&path]);
    let line = "error: NaN or Inf: model.bin: `whole`: 3 of 200000 elements, the first at 70001\n";
    assert!(text.starts_with(line), "{text}");
}

#[test]
fn nan_in_a_legacy_file_is_found() {
    let model = copy("gpt2/primary");
    let path = model.path().join("pytorch_model.bin");
    let mut bytes = fs::read(&path).expect("bytes");
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).expect("written");
    let (code, value) = json(model.path());
    assert_eq!((code, found(&value)), (65, vec!["note legacy".into(), "error non_finite".into()]));
    assert_eq!(nonfinite(&value)[0].1, 1);
}

#[test]
fn a_stored_crc_of_zero_is_a_note() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("model.bin");
    let tensors = [EmitTensor::contiguous("w", DType::Float16, &[64], 0)];
    let payload = f16(&[0x3c01; 64]);
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, &payload) as u32;
    let mut file = checkpoint(&tensors, &[payload]);
    let places: Vec<usize> =
        (0..file.len() - 4).filter(|at| file[*at..at + 4] == crc.to_le_bytes()).collect();
    assert!(places.len() >= 2);
    places.iter().for_each(|at| file[*at..at + 4].fill(0));
    fs::write(&path, file).expect("written");
    let (code, value) = json(&path);
    assert_eq!((code, found(&value)), (0, vec!["note unchecked".to_owned()]));
    assert_eq!(value["findings"][0]["records"], 1);
}

#[test]
fn findings_do_not_depend_on_the_number_of_threads() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("model.bin");
    // Two spans of 8 MiB and some more.
    let mut values = vec![0u16; 9 << 20];
    values[(9 << 20) - 1] = 0x7f80;
    values[17] = 0x7f80;
    let tensors = [EmitTensor::contiguous("w", DType::BFloat16, &[9, 1 << 20], 0)];
    fs::write(&path, checkpoint(&tensors, &[f16(&values)])).expect("written");
    let texts = ["1", "2", "7"].map(|threads| run(&["--threads", threads], &[&path]));
    assert_eq!(texts[0].0, 65);
    assert!(texts[0].1.contains("2 of 9437184 elements, the first at 17"), "{}", texts[0].1);
    assert!(texts.iter().all(|text| *text == texts[0]));
}

//! What `inspect` says of files that torch wrote, and that their values arrive.

use std::path::PathBuf;

use llm_slerp_merge::tensor::{DType, Layout};
use serde_json::{Value, json};

use crate::build::Dict;
use crate::support::{child_bytes, fixture, listing, merge, own_reader, tool};

/// Every reader file, with what torch.load says of it.
fn reader_files() -> Vec<(PathBuf, Vec<Value>)> {
    let names = listing(&fixture("reader"));
    let files = names.iter().filter(|name| name.ends_with(".bin"));
    let files: Vec<(PathBuf, Vec<Value>)> = files
        .map(|name| {
            let path = fixture("reader").join(name);
            let said: Value =
                serde_json::from_slice(&std::fs::read(path.with_extension("json")).unwrap())
                    .unwrap();
            (path, said["tensors"].as_array().unwrap().clone())
        })
        .collect();
    assert!(files.len() >= 17);
    files
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What torch says of the bytes of each tensor, by name.
fn torch_bytes(said: &[Value]) -> Vec<(&str, &str)> {
    said.iter()
        .map(|tensor| (tensor["name"].as_str().unwrap(), tensor["bytes"].as_str().unwrap()))
        .collect()
}

#[test]
fn names_dtypes_shapes_strides_and_offsets_are_those_of_torch() {
    for (path, said) in reader_files() {
        let run = tool(["inspect".as_ref(), path.as_os_str(), "--json".as_ref()]).success();
        let found = run.json();
        let file = path.file_name().unwrap().to_str().unwrap();
        let expected: Vec<Value> = said
            .iter()
            .map(|tensor| {
                let mut row = tensor.clone();
                row.as_object_mut().unwrap().remove("bytes");
                row["file"] = json!(file);
                row
            })
            .collect();
        assert_eq!(found["tensors"].as_array().unwrap(), &expected, "{file}");
    }
}

#[test]
fn the_reader_finds_the_bytes_that_torch_loads() {
    for (path, said) in reader_files() {
        let found = own_reader(&path);
        let found: Vec<(&str, String)> =
            found.iter().map(|(name, _, bytes)| (name.as_str(), hex(bytes))).collect();
        let found: Vec<(&str, &str)> =
            found.iter().map(|(name, bytes)| (*name, bytes.as_str())).collect();
        assert_eq!(found, torch_bytes(&said), "{}", path.display());
    }
}

#[test]
fn a_merge_at_zero_carries_the_bytes_of_every_container() {
    let dir = tempfile::tempdir().unwrap();
    let mut merged = 0;
    for (path, said) in reader_files() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let out = dir.path().join(name);
        let run = merge(&path, &path, &out, &["-t", "0"]);
        if name.starts_with("dtypes") || name.starts_with("views") {
            // Complex numbers and expanded views have no meaning in a merge.
            let refused = if name.starts_with("dtypes") { "`complex64`" } else { "`expanded`" };
            let said = run.refused(65);
            assert!(said.contains(name) && said.contains(refused), "{said}");
            continue;
        }
        run.success();
        let child = child_bytes(&out);
        for (tensor, bytes) in torch_bytes(&said) {
            assert_eq!(hex(&child[tensor]), bytes, "{name}: {tensor:?}");
        }
        assert_eq!(child.len(), said.len());
        merged += 1;
    }
    assert!(merged >= 13);
}

#[test]
fn every_dtype_that_can_be_merged_keeps_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let source = own_reader(&fixture("reader/dtypes.bin"));
    let mut dict = Dict::new();
    for (name, dtype, bytes) in source.iter().filter(|(_, dtype, _)| !dtype.starts_with("complex"))
    {
        let dtype = DType::from_name(dtype).unwrap();
        let shape: &[u64] = if name.ends_with(".scalar") { &[] } else { &[2, 3] };
        dict = dict.raw(name, dtype, shape, bytes.clone());
    }
    let path = dir.path().join("all.bin");
    dict.file(&path);
    let out = dir.path().join("child");
    merge(&path, &path, &out, &["-t", "0.37"]).success();
    assert_eq!(own_reader(&out), own_reader(&path));
}

#[test]
fn views_are_merged_as_they_look() {
    let dir = tempfile::tempdir().unwrap();
    let base: Vec<f64> = (0..12).map(f64::from).collect();
    let layout = |shape: &[u64], stride: &[u64], storage_offset| Layout {
        shape: shape.to_vec(),
        stride: stride.to_vec(),
        storage_offset,
    };
    let dict = Dict::new()
        .f32("base", &[12], &base)
        .view("row", "base", layout(&[3], &[1], 6))
        .view("transposed", "base", layout(&[3, 4], &[1, 3], 0))
        .view("every_third", "base", layout(&[4], &[3], 1));
    let model = dict.bare(dir.path(), "a");
    let out = dir.path().join("child");
    merge(&model, &model, &out, &["-t", "0.5"]).success();
    let floats =
        |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    let child = child_bytes(&out);
    assert_eq!(child["row"], floats(&[6.0, 7.0, 8.0]));
    assert_eq!(
        child["transposed"],
        floats(&[0.0, 3.0, 6.0, 9.0, 1.0, 4.0, 7.0, 10.0, 2.0, 5.0, 8.0, 11.0])
    );
    assert_eq!(child["every_third"], floats(&[1.0, 4.0, 7.0, 10.0]));
}

#[test]
fn several_models_are_listed_and_text_names_escapes() {
    let [one, odd] = ["reader/single.bin", "reader/odd_names.bin"].map(fixture);
    let arguments = ["inspect".as_ref(), one.as_os_str(), odd.as_os_str()];
    let both = tool(arguments.iter().copied().chain(["--json".as_ref()])).success().json();
    assert_eq!(both["models"].as_array().unwrap().len(), 2);
    assert_eq!(both["models"][0]["tensors"][0]["name"], "only");
    let text = tool(arguments).success().stdout;
    assert!(text.contains("a\\nb\\u{1b}[31m") && !text.contains('\u{1b}'), "{text}");
}

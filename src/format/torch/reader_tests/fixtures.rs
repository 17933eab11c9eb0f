//! Tests that files which torch wrote are read as torch reads them: names, dtypes, layouts, ties
//! and bytes.

use crate::format::error::Rule;
use crate::format::inflate::inflate_exact;
use crate::format::read_at::ReadAt;
use crate::format::state_dict::{Encoding, StateDict, Tensor};
use crate::format::torch::reader_tests::read_whole;

/// All fixtures, by name.
pub(super) const FILES: [(&str, &[u8]); 9] = [
    ("plain.bin", include_bytes!("../../../../tests/data/format/plain.bin")),
    ("deflated.bin", include_bytes!("../../../../tests/data/format/deflated.bin")),
    ("views.bin", include_bytes!("../../../../tests/data/format/views.bin")),
    ("ordered.bin", include_bytes!("../../../../tests/data/format/ordered.bin")),
    ("parameters.bin", include_bytes!("../../../../tests/data/format/parameters.bin")),
    ("bytes_dtypes.bin", include_bytes!("../../../../tests/data/format/bytes_dtypes.bin")),
    ("nested.bin", include_bytes!("../../../../tests/data/format/nested.bin")),
    ("protocol4.bin", include_bytes!("../../../../tests/data/format/protocol4.bin")),
    ("legacy.bin", include_bytes!("../../../../tests/data/format/legacy.bin")),
];

#[derive(serde::Deserialize)]
struct Expected {
    file: String,
    nest: Option<String>,
    skipped: Vec<String>,
    tensors: Vec<ExpectedTensor>,
}

#[derive(serde::Deserialize)]
struct ExpectedTensor {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    stride: Vec<u64>,
    storage_offset: u64,
    storage: usize,
    bytes: String,
}

#[test]
fn torchs_files_are_read_as_torch_reads_them() {
    let text = include_str!("../../../../tests/data/format/expected.json");
    let expected: Vec<Expected> = serde_json::from_str(text).expect("the fixtures' list");
    assert_eq!(expected.len(), FILES.len());
    for expected in expected {
        let file = FILES.iter().find(|file| file.0 == expected.file).expect("a listed file").1;
        let state_dict = read_whole(file).expect(&expected.file);
        assert_eq!(state_dict.nest, expected.nest, "{}", expected.file);
        assert_eq!(state_dict.skipped, expected.skipped, "{}", expected.file);
        assert_eq!(state_dict.tensors.len(), expected.tensors.len(), "{}", expected.file);
        for (found, expected) in state_dict.tensors.iter().zip(&expected.tensors) {
            assert_eq!(found.name, expected.name);
            assert_eq!(found.dtype.name(), expected.dtype, "{}", found.name);
            assert_eq!(found.layout.shape, expected.shape, "{}", found.name);
            assert_eq!(found.layout.stride, expected.stride, "{}", found.name);
            assert_eq!(found.layout.storage_offset, expected.storage_offset, "{}", found.name);
            assert_eq!(found.storage, expected.storage, "{}", found.name);
            assert_eq!(hex(&elements(file, &state_dict, found)), expected.bytes, "{}", found.name);
        }
    }
}

/// The tensor's elements in row-major order, read one by one.
fn elements(file: &[u8], state_dict: &StateDict, tensor: &Tensor) -> Vec<u8> {
    let storage = &state_dict.storages[tensor.storage];
    let source = file.to_vec();
    let bytes = match storage.encoding {
        Encoding::Stored => {
            let mut bytes = vec![0; storage.size_bytes as usize];
            source.read_exact_at(storage.file_offset, &mut bytes).expect("a whole storage");
            bytes
        }
        Encoding::Deflated { compressed_bytes } => {
            let (offset, size) = (storage.file_offset, storage.record_bytes);
            inflate_exact(&source, offset, compressed_bytes, size).expect("a whole storage")
        }
    };
    if let Some(crc32) = storage.crc32 {
        let found = crate::tensor::crc32(&bytes);
        assert_eq!(crc32, found, "{}", tensor.name);
    }
    let item = tensor.dtype.size_bytes();
    let mut positions = vec![tensor.layout.storage_offset];
    for (size, stride) in tensor.layout.shape.iter().zip(&tensor.layout.stride) {
        let steps = |start: &u64| (0..*size).map(|step| start + step * stride).collect::<Vec<_>>();
        positions = positions.iter().flat_map(steps).collect();
    }
    let element = |position: &u64| {
        let start = (position * item) as usize;
        bytes[start..start + item as usize].to_vec()
    };
    positions.iter().flat_map(element).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_cut_file_is_refused_at_every_length() {
    for (name, file) in FILES {
        for length in 0..file.len() {
            let refusal = super::refusal(&file[..length]);
            assert!(refusal.is_some(), "{name} cut to {length} bytes");
        }
        let half = super::refusal(&file[..file.len() / 2]);
        assert_eq!(half, Some(Rule::Truncated), "{name}");
    }
}

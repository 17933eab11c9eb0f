//! Models to look at: copies of fixtures, files made with the crate's own writer, zips made anew.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use llm_slerp_merge::checkpoint::Opening;
use llm_slerp_merge::engine::VerifySettings;
use llm_slerp_merge::format::{EmitTensor, ShardLayout, StorageSum, archive_records};
use tempfile::TempDir;

/// A check on one thread.
pub(crate) fn one_thread() -> VerifySettings<'static> {
    VerifySettings { threads: 1, opening: Opening::default(), interrupted: &|| None }
}

/// A fixture of `tests/data`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A copy of a fixture's directory.
pub(crate) fn copy(name: &str) -> TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    for entry in fs::read_dir(fixture(name)).expect("a fixture") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("copied");
    }
    copy
}

/// Replaces text in a file; it must be there.
pub(crate) fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).expect("text");
    assert!(text.contains(from), "`{from}` in {}", path.display());
    fs::write(path, text.replace(from, to)).expect("written");
}

/// Flips one bit of a file.
pub(crate) fn flip(path: &Path, bit: usize) {
    let mut bytes = fs::read(path).expect("bytes");
    bytes[bit / 8] ^= 1 << (bit % 8);
    fs::write(path, bytes).expect("written");
}

/// The bytes of a checkpoint file as torch writes it.
pub(crate) fn checkpoint(tensors: &[EmitTensor], storages: &[Vec<u8>]) -> Vec<u8> {
    let sizes: Vec<u64> = storages.iter().map(|bytes| bytes.len() as u64).collect();
    let layout = ShardLayout::new("pytorch_model.bin", tensors, &sizes).expect("a layout");
    let mut file = vec![0; layout.total_bytes() as usize];
    let mut write = |offset: u64, bytes: &[u8]| {
        file[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
    };
    for (storage, bytes) in storages.iter().enumerate() {
        write(layout.storage_offset(storage).expect("a storage"), bytes);
    }
    let sums: Vec<StorageSum> = storages.iter().map(|bytes| StorageSum::of(bytes)).collect();
    let tail = layout.tail_pieces(&sums).expect("one sum per storage");
    for piece in layout.head_pieces().iter().chain(&tail) {
        write(piece.offset, &piece.bytes);
    }
    file
}

/// The same records in a zip made anew: deflated or stored, each with the bytes that `change` makes.
pub(crate) fn zip_again(
    file: &[u8],
    deflated: bool,
    change: impl Fn(&str, Vec<u8>) -> Vec<u8>,
) -> Vec<u8> {
    let (mut out, mut directory, mut count) = (Vec::new(), Vec::new(), 0u16);
    for record in archive_records(&file.to_vec()).expect("an archive") {
        let start = record.file_offset as usize;
        let bytes = file[start..start + record.size_bytes as usize].to_vec();
        let bytes = change(&record.name, bytes);
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, &bytes) as u32;
        let data = if deflated { deflate(&bytes) } else { bytes.clone() };
        let mut fields = vec![20, 0, 0, 0, if deflated { 8 } else { 0 }, 0, 0, 0, 0, 0];
        for number in [crc, data.len() as u32, bytes.len() as u32, record.name.len() as u32] {
            fields.extend(number.to_le_bytes());
        }
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&fields);
        directory.extend([0; 10]);
        directory.extend((out.len() as u32).to_le_bytes());
        directory.extend(record.name.as_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(fields);
        out.extend(record.name.as_bytes());
        out.extend(data);
        count += 1;
    }
    let offset = out.len() as u32;
    let size = directory.len() as u32;
    out.extend(directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
    out.extend([size.to_le_bytes(), offset.to_le_bytes()].concat());
    out.extend([0, 0]);
    out
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("deflated")
}

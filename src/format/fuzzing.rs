//! The bodies of the fuzz targets, which the tests run too.
//!
//! Each returns whether the bytes were accepted, and panics where a reader breaks a promise.

use crate::error::Error;
use crate::format::error::FormatError;
use crate::format::index_json::Index;
use crate::format::inflate::inflate_pieces;
use crate::format::load::read_state_dict;
use crate::format::state_dict::{ByteOrder, Container, Encoding, StateDict};
use crate::format::torch::collect::{ReadOptions, collect};
use crate::format::torch::pickle::machine::read_pickle;
use crate::format::torch::pickle::names::opaque::{OpaqueName, OpaqueNames};
use crate::format::torch::pickle::stack::{SHARED_VALUES, Source};
use crate::format::torch::pickle::write::storages::EmitTensor;
use crate::format::torch::rebuild::{Mention, Record};
use crate::format::torch::shard_layout::ShardLayout;
use crate::format::torch::zip::records::archive_records;

/// Size in bytes that every storage of a lone pickle is given.
const ROOM_BYTES: u64 = 1 << 20;

/// Largest deflated storage that is decoded, in bytes, so that one run stays short.
const MAX_INFLATED_BYTES: u64 = 1 << 20;

/// Longest message, in bytes, its hint left out.
const MAX_MESSAGE_BYTES: usize = 1024;

/// `data.pkl` of a zip, and the object pickle of the older format, with every storage there.
pub fn pickle(bytes: &[u8]) -> bool {
    let total = bytes.len() as u64;
    let options = options();
    let opaque = &options.opaque;
    let source = Source { bytes, total, base: 0, what: "data.pkl", file_bytes: total, opaque };
    let pickle = match read_pickle(source) {
        Ok(pickle) => pickle,
        Err(refusal) => {
            assert!(!refusal.more_would_help, "all bytes were at hand");
            check_error(refusal.error);
            return false;
        }
    };
    assert!(pickle.length() <= bytes.len());
    let most = bytes.len().saturating_add(SHARED_VALUES);
    assert!(pickle.values().count() <= most, "more values than opcodes");
    let locate = |_: &Mention| {
        let (file_offset, record_bytes, encoding) = (0, ROOM_BYTES, Encoding::Stored);
        Ok(Record { file_offset, record_bytes, encoding, crc32: None })
    };
    let mut accepted = false;
    let key = [Some(""), Some("model"), Some("a.b")].get(bytes.len() % 3).copied().flatten();
    for key in [None, key] {
        let options = ReadOptions { key: key.map(str::to_owned), ..options.clone() };
        for container in [Container::Zip, Container::Legacy] {
            match collect(&pickle, &options, container, ByteOrder::Little, &locate) {
                Ok(state_dict) => {
                    check_state_dict(&state_dict, ROOM_BYTES);
                    accepted = true;
                }
                Err(error) => check_error(error),
            }
        }
    }
    accepted
}

/// Options that reach the most code: with names that a user gave.
fn options() -> ReadOptions {
    let names = ["m.C", "__main__.Config"].map(OpaqueName::parse);
    ReadOptions { key: None, opaque: OpaqueNames::new(names.into_iter().flatten()) }
}

/// A whole file: zip, older format, or anything else.
pub fn file(bytes: &[u8]) -> bool {
    let bytes = bytes.to_vec();
    let state_dict = match read_state_dict(&bytes, &options()) {
        Ok(state_dict) => state_dict,
        Err(error) => {
            check_error(error);
            return false;
        }
    };
    check_state_dict(&state_dict, bytes.len() as u64);
    for storage in &state_dict.storages {
        let Encoding::Deflated { compressed_bytes } = storage.encoding else { continue };
        if storage.record_bytes > MAX_INFLATED_BYTES {
            continue;
        }
        let mut decoded = 0u64;
        let mut count = |piece: &[u8]| {
            decoded = decoded.saturating_add(piece.len() as u64);
            Ok(())
        };
        let (offset, size) = (storage.file_offset, storage.record_bytes);
        match inflate_pieces(&bytes, offset, compressed_bytes, size, &mut count) {
            Ok(()) => assert_eq!(decoded, size),
            Err(error) => {
                assert!(decoded <= size);
                check_error(error);
            }
        }
    }
    if state_dict.container.has_checksums() {
        let records = archive_records(&bytes).map_or(0, |records| records.len());
        assert!(records >= state_dict.storages.len(), "fewer records than storages");
    }
    true
}

/// A whole safetensors file and, behind a byte that says how much data follows, the header of one.
pub fn safetensors(bytes: &[u8]) -> bool {
    let whole = file(bytes);
    let Some((data_bytes, header)) = bytes.split_first() else { return whole };
    let mut made = (header.len() as u64).to_le_bytes().to_vec();
    made.extend_from_slice(header);
    made.resize(made.len() + usize::from(*data_bytes), 0);
    match read_state_dict(&made, &ReadOptions::default()) {
        Ok(state_dict) => {
            check_state_dict(&state_dict, made.len() as u64);
            if state_dict.container == Container::Safetensors {
                let sizes = state_dict.storages.iter().map(|storage| storage.size_bytes);
                assert_eq!(sizes.sum::<u64>(), u64::from(*data_bytes), "a byte is claimed by none");
            }
            true
        }
        Err(error) => {
            check_error(error);
            whole
        }
    }
}

/// An index JSON.
pub fn index(bytes: &[u8]) -> bool {
    let index = match Index::parse(bytes) {
        Ok(index) => index,
        Err(error) => {
            check_error(error);
            return false;
        }
    };
    assert!(!index.weight_map.is_empty());
    let mut names = std::collections::HashSet::new();
    for (name, file) in &index.weight_map {
        assert!(names.insert(name), "a name twice");
        let path = std::path::Path::new(file);
        assert_eq!(path.file_name(), Some(path.as_os_str()), "{file:?} is no plain name");
        assert_eq!(std::path::Path::new("d").join(path).parent(), Some("d".as_ref()));
    }
    let pairs = index.weight_map.iter().map(|(name, file)| (name.as_str(), file.as_str()));
    let text = super::index_text(Some(1), 2, pairs);
    let again = Index::parse(text.as_bytes());
    assert!(again.is_ok_and(|again| again.weight_map.len() == index.weight_map.len()));
    true
}

/// A shard's layout over contiguous tensors, each alone in its storage: every storage has a place.
pub fn layout(tensors: &[EmitTensor], storage_bytes: &[u64]) {
    if let Ok(layout) = ShardLayout::new("pytorch_model.bin", tensors, storage_bytes) {
        for (storage, bytes) in storage_bytes.iter().enumerate() {
            let end = layout.storage_offset(storage).and_then(|start| start.checked_add(*bytes));
            assert!(end.is_some_and(|end| end <= layout.total_bytes()));
        }
    }
}

/// Asserts what [`StateDict`] promises.
pub(super) fn check_state_dict(state_dict: &StateDict, file_bytes: u64) {
    for storage in &state_dict.storages {
        assert!(storage.size_bytes <= storage.record_bytes);
        let stored = match storage.encoding {
            Encoding::Stored => storage.record_bytes,
            Encoding::Deflated { compressed_bytes } => compressed_bytes,
        };
        assert!(storage.file_offset.checked_add(stored).is_some_and(|end| end <= file_bytes));
    }
    for value in &state_dict.opaque {
        assert!(!value.name.is_empty());
    }
    let mut names = std::collections::HashSet::new();
    for tensor in &state_dict.tensors {
        let storage = state_dict.storages.get(tensor.storage);
        assert!(names.insert(&tensor.name), "a name twice");
        assert_eq!(tensor.layout.shape.len(), tensor.layout.stride.len());
        let end = tensor.layout.end().and_then(|end| end.checked_mul(tensor.dtype.size_bytes()));
        let inside = end.zip(storage).is_some_and(|(end, storage)| end <= storage.size_bytes);
        assert!(inside, "{tensor:?}");
        assert!(tensor.layout.numel().is_some());
    }
}

/// Asserts that a refusal says something, briefly and in printable characters.
fn check_error(error: FormatError) {
    assert!(!error.what.is_empty());
    let message = Error::from_format("pytorch_model.bin".as_ref(), error).to_string();
    assert!(message.len() <= MAX_MESSAGE_BYTES, "{} bytes: {message}", message.len());
    let printable = |character: char| character == '\n' || !character.is_control();
    assert!(message.chars().all(printable), "{message:?}");
}

#[cfg(test)]
/// The seeds of one target, which `scripts/fuzz.sh --keep` wrote: a line of hexadecimal digits each.
fn seeds(text: &str) -> Vec<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16).expect("a digit") as u8;
    let seed = |line: &str| -> Vec<u8> {
        line.as_bytes().chunks(2).map(|two| digit(two[0]) << 4 | digit(two[1])).collect()
    };
    text.lines().map(seed).collect()
}

#[cfg(test)]
/// Runs every seed, then changed ones: single bytes, cuts, doubled parts, parts of other seeds.
pub(crate) fn replay(text: &str, target: impl Fn(&[u8]) -> bool) {
    let seeds = seeds(text);
    assert!(seeds.len() > 50, "{} seeds", seeds.len());
    let accepted = seeds.iter().filter(|seed| target(seed)).count();
    assert!(accepted > 0, "nothing is accepted: the seeds test nothing");
    let mut state = 0x5eed_u64;
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % limit.max(1)
    };
    for _ in 0..8_000 {
        let mut bytes = seeds[below(seeds.len())].clone();
        for _ in 0..=below(3) {
            let (at, length) = (below(bytes.len()), below(24));
            let end = (at + length).min(bytes.len());
            match below(5) {
                0 => bytes.truncate(at),
                1 => drop(bytes.drain(at..end)),
                2 => {
                    let again = bytes[at..end].to_vec();
                    bytes.splice(at..at, again);
                }
                3 => {
                    let other = &seeds[below(seeds.len())];
                    let from = below(other.len());
                    let part = other[from..(from + length).min(other.len())].to_vec();
                    bytes.splice(at..end, part);
                }
                _ if at < bytes.len() => bytes[at] ^= 1 << below(8),
                _ => {}
            }
        }
        target(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_pickle_is_read_or_refused() {
        replay(include_str!("../../fuzz/corpus/pickle.hex"), pickle);
    }

    #[test]
    fn any_file_is_read_or_refused() {
        replay(include_str!("../../fuzz/corpus/file.hex"), file);
    }

    #[test]
    fn any_safetensors_file_is_read_or_refused() {
        replay(include_str!("../../fuzz/corpus/safetensors.hex"), safetensors);
    }

    #[test]
    fn any_index_is_read_or_refused() {
        replay(include_str!("../../fuzz/corpus/index.hex"), index);
    }
}

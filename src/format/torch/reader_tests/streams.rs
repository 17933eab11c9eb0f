//! Tests legacy streams and files of other kinds.

use super::build::{NONE, dict, int, pickle, six_floats, storage_of, tensor, text, tuple};
use super::{read, read_whole, refusal};
use crate::format::error::Rule;
use crate::format::state_dict::Container;

const MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
const PROTOCOL: &[u8] = b"\x80\x02M\xe9\x03.";

/// A storage of six float32 with key `11`, whole or in part.
fn part(view: Option<(i64, i64)>) -> Vec<u8> {
    let view = match view {
        Some((offset, numel)) => tuple(&[text("22"), int(offset), int(numel)]),
        None => NONE.to_vec(),
    };
    storage_of("FloatStorage", text("11"), 6, Some(view))
}

fn usual() -> Vec<u8> {
    tensor(part(None), 0, &[2, 3], &[3, 1])
}

fn sys_info(little: bool) -> Vec<u8> {
    pickle(&dict(&[("little_endian", if little { b"\x88" } else { b"\x89" }.to_vec())]))
}

fn keys(keys: &[&str]) -> Vec<u8> {
    let items: Vec<u8> = keys.iter().flat_map(|key| text(key)).collect();
    pickle(&[b"](".as_slice(), &items, b"e"].concat())
}

fn stored(numel: i64, data: &[u8]) -> Vec<u8> {
    [numel.to_le_bytes().as_slice(), data].concat()
}

fn stream(object: &[u8], keys: &[u8], storages: &[u8]) -> Vec<u8> {
    [MAGIC, PROTOCOL, &sys_info(true), &pickle(object), keys, storages].concat()
}

#[test]
fn a_stream_is_read_with_its_positions() {
    let file = stream(&dict(&[("a", usual())]), &keys(&["11"]), &stored(6, &six_floats()));
    let state_dict = read(&file).expect("a good stream");
    assert_eq!(state_dict.container, Container::Legacy);
    assert_eq!(state_dict.storages[0].file_offset, file.len() as u64 - 24);
    assert_eq!(state_dict.storages[0].crc32, None);
    // Bytes behind the last storage are ignored, as torch does.
    assert!(read(&[file, b"junk".to_vec()].concat()).is_ok());
}

#[test]
fn a_view_counts_from_its_own_start() {
    let object = dict(&[
        ("b", tensor(part(Some((2, 3))), 1, &[2], &[1])),
        ("a", tensor(part(None), 0, &[6], &[1])),
    ]);
    let file = stream(&object, &keys(&["11"]), &stored(6, &six_floats()));
    let state_dict = read(&file).expect("a good stream");
    assert_eq!(state_dict.tensors[0].layout.storage_offset, 3);
    assert_eq!((state_dict.tensors[0].storage, state_dict.tensors[1].storage), (0, 0));
    for (view, size) in [((2, 3), 4), ((4, 3), 1), ((-1, 3), 1), ((0, i64::MAX), 1)] {
        let object = dict(&[("b", tensor(part(Some(view)), 0, &[size], &[1]))]);
        let file = stream(&object, &keys(&["11"]), &stored(6, &six_floats()));
        assert!(refusal(&file).is_some(), "{view:?} {size}");
    }
}

#[test]
fn a_stream_that_breaks_its_rules_is_refused() {
    let object = dict(&[("a", usual())]);
    let good = stored(6, &six_floats());
    let cases = [
        ("no key", stream(&object, &keys(&[]), &[]), Rule::MissingRecord),
        (
            "unknown key",
            stream(&object, &keys(&["11", "9"]), &[good.clone(), good.clone()].concat()),
            Rule::Legacy,
        ),
        (
            "key twice",
            stream(&object, &keys(&["11", "11"]), &[good.clone(), good.clone()].concat()),
            Rule::Legacy,
        ),
        ("numel", stream(&object, &keys(&["11"]), &stored(5, &six_floats())), Rule::StorageSize),
        (
            "negative numel",
            stream(&object, &keys(&["11"]), &stored(-6, &six_floats())),
            Rule::StorageSize,
        ),
        ("cut data", stream(&object, &keys(&["11"]), &good[..20]), Rule::Truncated),
        ("cut numel", stream(&object, &keys(&["11"]), &good[..5]), Rule::Truncated),
        ("no keys", stream(&object, &[], &[]), Rule::Truncated),
        ("keys as a dict", stream(&object, &pickle(b"}"), &good), Rule::Legacy),
        ("protocol", [MAGIC, b"\x80\x02M\xe8\x03."].concat(), Rule::Legacy),
        ("big-endian", [MAGIC, PROTOCOL, &sys_info(false)].concat(), Rule::ByteOrder),
        (
            "five items",
            stream(&dict(&[("a", super::build::usual())]), &keys(&["0"]), &good),
            Rule::Pickle,
        ),
        (
            "module",
            stream(
                &[tuple(&[text("module"), NONE.into()]), b"Q".to_vec()].concat(),
                &keys(&[]),
                &[],
            ),
            Rule::Unsupported,
        ),
    ];
    for (name, file, rule) in cases {
        assert_eq!(refusal(&file), Some(rule), "{name}");
    }
}

#[test]
fn code_in_any_pickle_of_a_stream_is_refused() {
    let evil = pickle(b"cposix\nsystem\nX\x02\0\0\0id\x85R");
    let good = pickle(&dict(&[("a", usual())]));
    let info = sys_info(true);
    let before: [&[&[u8]]; 5] = [
        &[],
        &[MAGIC],
        &[MAGIC, PROTOCOL],
        &[MAGIC, PROTOCOL, &info],
        &[MAGIC, PROTOCOL, &info, &good],
    ];
    for parts in before {
        let file = [parts.concat(), evil.clone(), good.clone()].concat();
        assert_eq!(refusal(&file), Some(Rule::ForbiddenGlobal), "after {}", parts.len());
    }
}

#[test]
fn files_of_other_kinds_are_named_with_advice() {
    let mut tar = vec![0; 1024];
    tar[..9].copy_from_slice(b"sys_info\0");
    tar[257..262].copy_from_slice(b"ustar");
    let cases: [(&[u8], &str); 16] = [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a git-LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "an HTML page"),
        (b"\n  <html>", "an HTML page"),
        (b"\x1f\x8b\x08\0", "gzip data"),
        (b"7z\xbc\xaf\x27\x1c\0\x04", "a 7z archive"),
        (b"\x93NUMPY\x01\0", "a numpy array"),
        (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
        (b"GGUF\x03\0\0\0", "a GGUF model"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras, TensorFlow)"),
        (&tar, "a tar archive"),
        (b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "an empty zip archive"),
        (b"\x80\x02}q\0.", "a bare pickle"),
        (&[0; 100], "zeros"),
        (b"hello world", "a text file"),
        (b"{\"error\": 404}", "a JSON file"),
        (b"PYTORCH1\0", "a torch file of an unreleased format"),
    ];
    for (bytes, kind) in cases {
        let error = read_whole(bytes).expect_err(kind);
        assert_eq!((error.rule, error.found.as_str()), (Rule::WrongKind, kind));
        assert!(error.hint.is_some(), "{kind}");
    }
    assert_eq!(refusal(b""), Some(Rule::Empty));
    assert_eq!(refusal(b"PK\x03"), Some(Rule::Empty));
    assert_eq!(refusal(b"\x01\x02\x03\x04\x05"), Some(Rule::UnknownKind));
}

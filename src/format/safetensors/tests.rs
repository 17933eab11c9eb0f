//! Files that the library wrote are read as it reads them, and hostile headers are refused by their rule.

use crate::format::read_at::ReadAt;
use crate::format::{
    Container, EmitError, EmitTensor, FileLayout, ReadOptions, Rule, StateDict, Tensor,
    WeightFormat, read_state_dict,
};
use crate::tensor::Layout;

/// Written by safetensors 0.8.0 (scripts/make_format_fixtures.py).
const DTYPES: &[u8] = include_bytes!("../../../tests/data/format/dtypes.safetensors");

/// A file of this header and so many bytes of data.
fn file(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + data_bytes, 7);
    file
}

fn read(file: &[u8]) -> Result<StateDict, Rule> {
    read_state_dict(&file.to_vec(), &ReadOptions::default()).map_err(|error| error.rule)
}

/// An entry of float32 with this shape and these offsets.
fn entry(name: &str, shape: &str, offsets: &str) -> String {
    format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}"#)
}

#[derive(serde::Deserialize)]
struct Expected {
    tensors: Vec<ExpectedTensor>,
}

#[derive(serde::Deserialize)]
struct ExpectedTensor {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    stride: Vec<u64>,
    bytes: String,
}

#[test]
fn the_librarys_file_is_read_as_it_reads_it() {
    let text = include_str!("../../../tests/data/format/safetensors.json");
    let expected: Expected = serde_json::from_str(text).unwrap();
    let state_dict = read(DTYPES).unwrap();
    assert_eq!(state_dict.container, Container::Safetensors);
    assert_eq!(state_dict.tensors.len(), expected.tensors.len());
    for (found, expected) in state_dict.tensors.iter().zip(&expected.tensors) {
        let layout = (&found.layout.shape, &found.layout.stride);
        assert_eq!((&found.name, layout), (&expected.name, (&expected.shape, &expected.stride)));
        assert_eq!(found.dtype.name(), expected.dtype, "{}", found.name);
        let storage = &state_dict.storages[found.storage];
        assert_eq!((&storage.key, storage.crc32), (&found.name, None));
        let mut bytes = vec![0; storage.size_bytes as usize];
        DTYPES.to_vec().read_exact_at(storage.file_offset, &mut bytes).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected.bytes, "{}", found.name);
    }
}

#[test]
fn a_cut_file_and_one_with_more_bytes_are_refused() {
    for length in 0..DTYPES.len() {
        assert!(read(&DTYPES[..length]).is_err(), "cut to {length} bytes");
    }
    assert_eq!(read(&DTYPES[..DTYPES.len() - 1]).err(), Some(Rule::Truncated));
    assert_eq!(read(&DTYPES[..100]).err(), Some(Rule::Truncated));
    let more = [DTYPES, b"\0"].concat();
    assert_eq!(read(&more).err(), Some(Rule::SafetensorsData));
}

#[test]
fn what_other_writers_do_is_read() {
    let (v, w) = (entry("v", "[2]", "[0,8]"), entry("w", "[1]", "[8,12]"));
    for (header, bytes) in [
        ("{}".to_owned(), 0),
        ("{}      ".to_owned(), 0),
        (format!("{{{v},{w}}}"), 12),
        // In another order than the bytes; padded; with metadata behind, and empty.
        (format!("{{{w},{v}}}   "), 12),
        (format!(r#"{{{w},{v},"__metadata__":{{"format":"pt","a":""}}}}"#), 12),
        (format!(r#"{{"__metadata__":{{}}, {w}, {v}}}"#), 12),
        // No bytes at all, of a shape whose product would overflow but for the zero.
        (format!("{{{}}}", entry("e", "[0,9223372036854775807,4]", "[0,0]")), 0),
        (format!("{{{}}}", entry("scalar", "[]", "[0,4]")), 4),
        // Two empty tensors at one place, between others.
        (format!("{{{v},{},{},{w}}}", entry("e", "[0]", "[8,8]"), entry("f", "[0]", "[8,8]")), 12),
        (r#"{"\u0077":{"data_offsets":[0,1],"shape":[1],"dtype":"BO\u004fL"}}"#.to_owned(), 1),
    ] {
        assert!(read(&file(&header, bytes)).is_ok(), "{header}");
    }
    // A header of 640 bytes begins as a pickle of protocol 2 does, one of 0x04034b50 as a zip.
    let padded = format!("{{{v},{w}}}{}", " ".repeat(640 - 2 - v.len() - 1 - w.len()));
    assert_eq!(
        (padded.len(), read(&file(&padded, 12)).map(|found| found.tensors.len())),
        (640, Ok(2))
    );
}

/// Rule, words of the message, and the file.
type Case = (Rule, &'static str, Vec<u8>);

fn hostile() -> Vec<Case> {
    use Rule::{
        SafetensorsData as Data, SafetensorsHeader as Header, StorageSize, TensorName, Truncated,
    };
    let length = |length: u64| [&length.to_le_bytes()[..], b"{}"].concat();
    let of = |header: &str, bytes: usize| file(header, bytes);
    let one = |shape: &str, offsets: &str, bytes| {
        of(&format!("{{{}}}", entry("w", shape, offsets)), bytes)
    };
    let two = |a: &str, b: &str, bytes| {
        of(&format!("{{{},{}}}", entry("a", "[1]", a), entry("b", "[1]", b)), bytes)
    };
    let deep = |before: &str| format!("{before}{}", "[".repeat(100_000));
    let dtype = |word: &str| {
        of(&format!(r#"{{"w":{{"dtype":{word},"shape":[1],"data_offsets":[0,4]}}}}"#), 4)
    };
    let named = |name: &str| of(&format!("{{{}}}", entry(name, "[1]", "[0,4]")), 4);
    let metadata = |value: &str| of(&format!(r#"{{"__metadata__":{value}}}"#), 0);
    vec![
        // The length.
        (Header, "at most 100000000", length(1 << 62)),
        (Header, "at most 100000000", length(u64::MAX)),
        (Header, "at most 100000000", length(100_000_001)),
        (Truncated, "100000008 bytes", length(100_000_000)),
        (Truncated, "11 bytes", length(3)),
        (Header, "EOF", length(1)),
        // No JSON, or another.
        (Header, "EOF", of("{", 0)),
        (Header, "key must be a string", of("{w:1}", 0)),
        (Header, "trailing comma", of(r#"{"w":1,}"#, 0)),
        (Header, "trailing characters", of("{}{}", 0)),
        (Header, "UTF-8", [&9u64.to_le_bytes()[..], b"{\"\xff\xfe\":{}}"].concat()),
        (Header, "trailing characters", of("{}\0\0\0\0\0\0", 0)),
        (Header, "missing field `dtype`", of(r#"{"w":{}}"#, 0)),
        (Header, "missing field `data_offsets`", of(r#"{"w":{"dtype":"F32","shape":[]}}"#, 4)),
        (Header, "invalid type: null", of(r#"{"w":null}"#, 0)),
        (Header, "found an array", of(r#"{"w":["F32",[1],[0,4]]}"#, 4)),
        (
            Header,
            "duplicate field `shape`",
            of(r#"{"w":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}}"#, 4),
        ),
        (
            Header,
            "unknown field `strides`",
            of(r#"{"w":{"dtype":"F32","shape":[1],"strides":[1],"data_offsets":[0,4]}}"#, 4),
        ),
        // Nesting.
        (Header, "EOF", of(&deep(r#"{"w":"#), 0)),
        (
            Header,
            "unknown field",
            of(&format!("{}{}}}}}", deep(r#"{"w":{"x":"#), "]".repeat(100_000)), 0),
        ),
        (
            Header,
            "invalid type",
            of(&format!("{}{}}}}}", deep(r#"{"w":{"shape":"#), "]".repeat(100_000)), 0),
        ),
        (
            Header,
            "invalid type",
            of(&format!("{}{}}}", deep(r#"{"__metadata__":"#), "]".repeat(100_000)), 0),
        ),
        // Offsets.
        (Data, "an overlap", two("[0,4]", "[0,4]", 4)),
        (Data, "an overlap", two("[0,4]", "[2,6]", 6)),
        (Data, "a gap", two("[0,4]", "[8,12]", 12)),
        (Data, "a gap", one("[1]", "[4,8]", 8)),
        (Data, "offsets that rise", one("[1]", "[4,0]", 4)),
        (Data, "found 5", one("[1]", "[0,4]", 5)),
        (Header, "invalid value: integer `-4`", one("[1]", "[-4,0]", 4)),
        (Header, "invalid type: floating point", one("[1]", "[0,4.0]", 4)),
        (Header, "invalid type: floating point", one("[1]", "[0,18446744073709551616]", 4)),
        (Header, "invalid length 1", one("[1]", "[0]", 4)),
        (Header, "trailing characters", one("[1]", "[0,4,8]", 8)),
        (Truncated, "8 bytes of data", one("[2]", "[0,8]", 4)),
        (
            Truncated,
            "18446744073709551615 bytes of data",
            one("[1]", "[0,18446744073709551615]", 4),
        ),
        // Shapes.
        (StorageSize, "expected 8 bytes", one("[2]", "[0,4]", 4)),
        (StorageSize, "more than 2^64", one("[4294967296,4294967296]", "[0,4]", 4)),
        (StorageSize, "more than 2^64", one("[4611686018427387904]", "[0,0]", 0)),
        (StorageSize, "expected 0 bytes", one("[0]", "[0,4]", 4)),
        (Header, "invalid value: integer `-1`", one("[-1]", "[0,4]", 4)),
        (Header, "at most 64 sizes", one(&format!("[{}1]", "1,".repeat(64)), "[0,4]", 4)),
        (Header, "at most 64 sizes", one(&format!("[{}1]", "0,".repeat(1_000_000)), "[0,0]", 0)),
        // dtypes.
        (Header, "`F7`", dtype(r#""F7""#)),
        (Header, "`F4`", dtype(r#""F4""#)),
        (Header, "`float32`", dtype(r#""float32""#)),
        (Header, "invalid type: integer `4`", dtype("4")),
        // Names.
        (
            TensorName,
            "`w` twice",
            of(&format!("{{{},{}}}", entry("w", "[1]", "[0,4]"), entry("w", "[1]", "[4,8]")), 8),
        ),
        (
            TensorName,
            "`w` twice",
            of(
                &format!("{{{},{}}}", entry("w", "[1]", "[0,4]"), entry(r"\u0077", "[1]", "[4,8]")),
                8,
            ),
        ),
        (TensorName, "`__metadata__` twice", of(r#"{"__metadata__":{},"__metadata__":{}}"#, 0)),
        (TensorName, r"`a\nb`", named(r"a\nb")),
        (TensorName, r"`\u{1b}[2J`", named(r"\u001b[2J")),
        (TensorName, "``", named("")),
        (Header, "hex escape", named(r"\ud800")),
        (Header, "more than 131072 entries", {
            let names: Vec<String> = (0..131_073).map(|at| format!(r#""{at}":{{}}"#)).collect();
            of(&format!("{{{}}}", names.join(",")), 0)
        }),
        // Metadata.
        (Header, "`__metadata__` as an object of strings", metadata("[]")),
        (Header, "`__metadata__` as an object of strings", metadata("null")),
        (Header, "invalid type: integer `1`", metadata(r#"{"a":1}"#)),
        (Header, "invalid type: map", metadata(r#"{"a":{}}"#)),
        (Header, "a name is there twice", metadata(r#"{"a":"","a":""}"#)),
    ]
}

#[test]
fn hostile_headers_are_refused_by_their_rule() {
    let cases = hostile();
    assert!(cases.len() >= 50);
    let mut wrong = Vec::new();
    for (rule, words, file) in cases {
        let shown = String::from_utf8_lossy(&file[..file.len().min(120)]).into_owned();
        let Err(error) = read_state_dict(&file, &ReadOptions::default()) else {
            wrong.push(format!("{shown}: accepted"));
            continue;
        };
        let at = error.offset.map_or(String::new(), |offset| format!(" at byte {offset}"));
        let said = format!("{}{at}", error.text());
        if error.rule != rule || !said.contains(words) {
            wrong.push(format!("{shown}: {rule:?}, {words}: {:?}: {said}", error.rule));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_key_has_nothing_to_choose_from() {
    let options = ReadOptions { key: Some("model".to_owned()), ..ReadOptions::default() };
    let error = read_state_dict(&DTYPES.to_vec(), &options).unwrap_err();
    assert_eq!(error.rule, Rule::NoEntry);
}

/// The file's tensors as they are to be written, each alone in its storage; storages turned round, so that
/// their order is not the file's.
fn to_write(file: &[u8]) -> (Vec<EmitTensor>, Vec<u64>) {
    let state_dict = read(file).unwrap();
    let last = state_dict.storages.len() - 1;
    let tensor = |tensor: &Tensor| {
        let shape = &tensor.layout.shape;
        EmitTensor::contiguous(&tensor.name, tensor.dtype, shape, last - tensor.storage)
    };
    let sizes = state_dict.storages.iter().rev().map(|storage| storage.size_bytes).collect();
    (state_dict.tensors.iter().map(tensor).collect(), sizes)
}

#[test]
fn a_file_is_laid_out_as_the_library_lays_it_out() {
    let (mut tensors, sizes) = to_write(DTYPES);
    // Whatever order they come in.
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let layout =
        FileLayout::new(WeightFormat::Safetensors, "d/model.safetensors", &tensors, &sizes)
            .unwrap();
    assert_eq!(layout.total_bytes(), DTYPES.len() as u64);
    let head = layout.head_pieces();
    assert_eq!((head.len(), head[0].offset), (1, 0));
    assert!(head[0].bytes == DTYPES[..head[0].bytes.len()]);
    assert_eq!(layout.tail_pieces(&[]), Ok(Vec::new()));
    let found = read(DTYPES).unwrap();
    for (at, storage) in found.storages.iter().rev().enumerate() {
        assert_eq!(layout.storage_offset(at), Some(storage.file_offset));
    }
    assert_eq!(layout.storage_offset(sizes.len()), None);
}

#[test]
fn what_safetensors_can_not_hold_is_refused() {
    use crate::tensor::DType::{Bits8, Complex128, Float32, UInt8};
    let whole = |name: &str, dtype, storage| EmitTensor::contiguous(name, dtype, &[4], storage);
    let of = |tensors: &[EmitTensor], sizes: &[u64]| {
        FileLayout::new(WeightFormat::Safetensors, "m.safetensors", tensors, sizes).err()
    };
    let part = EmitTensor {
        layout: Layout { storage_offset: 1, ..Layout::contiguous(&[3]) },
        ..whole("w", UInt8, 0)
    };
    let turned = EmitTensor {
        layout: Layout { shape: vec![2, 2], stride: vec![1, 2], storage_offset: 0 },
        ..whole("w", UInt8, 0)
    };
    let w = || "w".to_owned();
    for (tensors, sizes, expected) in [
        (vec![whole("w", UInt8, 0)], &[4][..], None),
        (
            vec![whole("w", Complex128, 0)],
            &[64],
            Some(EmitError::DType { name: w(), dtype: Complex128 }),
        ),
        (vec![whole("w", Bits8, 0)], &[4], Some(EmitError::DType { name: w(), dtype: Bits8 })),
        (vec![whole("a\nb", UInt8, 0)], &[4], Some(EmitError::Name { name: "a\nb".to_owned() })),
        (vec![whole("", UInt8, 0)], &[4], Some(EmitError::Name { name: String::new() })),
        (
            vec![whole("__metadata__", UInt8, 0)],
            &[4],
            Some(EmitError::Name { name: "__metadata__".to_owned() }),
        ),
        (
            vec![whole("w", UInt8, 0), whole("w", UInt8, 1)],
            &[4, 4],
            Some(EmitError::DuplicateName { name: w() }),
        ),
        (
            vec![whole("v", UInt8, 0), whole("w", UInt8, 0)],
            &[4],
            Some(EmitError::NotAlone { name: w() }),
        ),
        (vec![part], &[4], Some(EmitError::NotAlone { name: w() })),
        (vec![turned], &[4], Some(EmitError::NotAlone { name: w() })),
        (vec![whole("w", Float32, 0)], &[4], Some(EmitError::NotAlone { name: w() })),
        (vec![whole("w", UInt8, 0)], &[4, 4], Some(EmitError::UnusedStorage { storage: 1 })),
        (
            vec![whole("w", UInt8, 1)],
            &[4],
            Some(EmitError::UnknownStorage { name: w(), storage: 1, count: 1 }),
        ),
        (
            vec![EmitTensor::contiguous("w", UInt8, &[1 << 63], 0)],
            &[1 << 63],
            Some(EmitError::TooLarge),
        ),
    ] {
        assert_eq!(of(&tensors, sizes), expected, "{tensors:?}");
    }
}

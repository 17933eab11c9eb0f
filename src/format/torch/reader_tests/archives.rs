//! Tests zip archives: every way in which headers, directory and end records can be wrong.

use std::io::Write;

use super::build::{Entry, dict, end, entries, entry, parts, pickle, six_floats, usual, zip};
use super::{read, refusal};
use crate::format::error::Rule;
use crate::format::state_dict::Encoding;

fn good() -> Vec<Entry> {
    entries(&pickle(&dict(&[("a", usual())])))
}

/// The rule that the good archive breaks after a change to its storage's entry.
fn refusal_after(change: impl FnOnce(&mut Entry)) -> Option<Rule> {
    let mut entries = good();
    change(&mut entries[1]);
    refusal(&zip(&entries))
}

/// The rule that the good archive breaks with one more entry.
fn refusal_with(name: &str) -> Option<Rule> {
    refusal(&zip(&[good(), vec![entry(name, b"")]].concat()))
}

#[test]
fn headers_that_differ_from_the_directory_are_refused() {
    assert_eq!(refusal_after(|_| {}), None);
    let structure = Some(Rule::ZipStructure);
    assert_eq!(refusal_after(|e| e.local.name = Some(b"x/data/9".to_vec())), structure);
    assert_eq!(refusal_after(|e| e.local.method = 8), structure);
    assert_eq!(refusal_after(|e| e.local.crc32 = 1), structure);
    assert_eq!(refusal_after(|e| e.local.compressed = 1), structure);
    assert_eq!(refusal_after(|e| e.local.size = 1), structure);
    assert_eq!(refusal_after(|e| e.local.flags = 0x800), structure);
    assert_eq!(refusal_after(|e| e.local.extra = b"FB\x09\0Z".to_vec()), structure);
    assert_eq!(refusal_after(|e| e.central.size = 1), structure);
    assert_eq!(
        refusal_after(|e| e.central.extra = b"\x01\0\x08\0\0\0\0\0\0\0\0\0".to_vec()),
        structure
    );
    assert_eq!(refusal_after(|e| e.shift = 1), structure);
    assert_eq!(refusal_after(|e| e.shift = u32::MAX), Some(Rule::ZipOverlap));
}

#[test]
fn encryption_and_other_methods_are_refused() {
    for flag in [1, 1 << 5, 1 << 6, 1 << 13] {
        let change = |e: &mut Entry| (e.local.flags, e.central.flags) = (flag, flag);
        assert_eq!(refusal_after(change), Some(Rule::ZipUnsupported), "{flag:#x}");
    }
    let change = |e: &mut Entry| (e.local.method, e.central.method) = (93, 93);
    assert_eq!(refusal_after(change), Some(Rule::ZipUnsupported));
}

#[test]
fn a_descriptor_must_repeat_the_directory() {
    let with = |descriptor: &dyn Fn(u32) -> Vec<u8>| {
        refusal_after(|e| {
            (e.local.flags, e.central.flags) = (0x808, 0x808);
            // xor with itself leaves 0, as writers that stream do.
            (e.local.crc32, e.local.compressed, e.local.size) = (e.crc32, 24, 24);
            e.behind = descriptor(e.crc32);
        })
    };
    let narrow = |crc: u32| [crc.to_le_bytes(), 24u32.to_le_bytes(), 24u32.to_le_bytes()].concat();
    let wide =
        |crc: u32| [&crc.to_le_bytes()[..], &24u64.to_le_bytes(), &24u64.to_le_bytes()].concat();
    let sign = |bytes: Vec<u8>| [b"PK\x07\x08".to_vec(), bytes].concat();
    assert_eq!(with(&narrow), None);
    assert_eq!(with(&wide), None);
    assert_eq!(with(&|crc| sign(narrow(crc))), None);
    assert_eq!(with(&|crc| sign(wide(crc))), None);
    assert_eq!(with(&|crc| sign(narrow(crc ^ 1))), Some(Rule::ZipStructure));
    assert_eq!(with(&|_| Vec::new()), Some(Rule::ZipStructure));
    assert_eq!(with(&|crc| narrow(crc)[..9].to_vec()), Some(Rule::ZipStructure));
    // Without the flag, there must be nothing between entries.
    assert_eq!(refusal_after(|e| e.behind = sign(narrow(e.crc32))), Some(Rule::ZipStructure));
}

#[test]
fn torchs_zip64_field_in_a_local_header_is_accepted() {
    let change = |e: &mut Entry| {
        (e.local.flags, e.central.flags) = (0x808, 0x808);
        (e.local.crc32, e.local.compressed, e.local.size) = (e.crc32, 24, 24);
        let numbers = [24u64.to_le_bytes(), [0; 8]].concat();
        e.local.extra = [b"\x01\0\x10\0".as_slice(), &numbers, b"FB\x02\0ZZ"].concat();
        let size = 24u64.to_le_bytes();
        e.behind = [b"PK\x07\x08".as_slice(), &e.crc32.to_le_bytes(), &size, &size].concat();
        // The directory keeps both sizes in the field and ones where they were.
        (e.central.compressed, e.central.size) = (!24, !24);
        e.central.extra = [b"\x01\0\x10\0".as_slice(), &size, &size].concat();
    };
    assert_eq!(refusal_after(change), None);
}

#[test]
fn names_that_two_readers_could_take_differently_are_refused() {
    for name in ["x/data/0", "X/DATA/0", "x/data/0/"] {
        assert_eq!(refusal_with(name), Some(Rule::ZipOverlap), "{name}");
    }
    let odd = ["x/../x/data/0", "/x/a", "x\\a", "x/a\0b", "x//a", "./x/a", "y/a", "a", "x/b.pkl"];
    for name in odd {
        assert_eq!(refusal_with(name), Some(Rule::ZipStructure), "{name}");
    }
    for name in ["x/", "x/data/", "x/other", "__MACOSX/x/._data.pkl"] {
        assert_eq!(refusal_with(name), None, "{name}");
    }
    for name in ["x/constants.pkl", "x/code/__torch__.py"] {
        assert_eq!(refusal_with(name), Some(Rule::WrongKind), "{name}");
    }
    assert_eq!(refusal(&zip(&[entry("x/version", b"3")])), Some(Rule::MissingRecord));
    for name in ["data.pkl", "a/b/data.pkl", "x/DATA.PKL"] {
        assert_eq!(refusal(&zip(&[entry(name, b"")])), Some(Rule::ZipStructure), "{name}");
    }
}

#[test]
fn end_records_must_agree_with_the_directory_and_each_other() {
    let (data, directory, count) = parts(&good());
    let (size, offset) = (directory.len(), data.len());
    let whole = |end: Vec<u8>| [data.clone(), directory.clone(), end].concat();
    assert_eq!(refusal(&whole(end(count, size, offset))), None);
    for (count, size, offset) in [
        (count + 1, size, offset),
        (count - 1, size, offset),
        (count, size - 1, offset),
        (count, size - 1, offset + 1),
        (count, size, offset - 1),
        (count, usize::MAX, offset),
        (0, 0, size + offset),
    ] {
        let refusal = refusal(&whole(end(count, size, offset)));
        assert_eq!(refusal, Some(Rule::ZipStructure), "{count} {size} {offset}");
    }
    // Bytes after the end are accepted, another end record is not, nor are bytes before.
    let file = zip(&good());
    assert_eq!(refusal(&[&file[..], b"junk"].concat()), None);
    assert_eq!(refusal(&[&file[..], &file].concat()), Some(Rule::ZipStructure));
    assert_eq!(refusal(&[b"junk", &file[..]].concat()), Some(Rule::WrongKind));
    assert_eq!(refusal(&[b"PK\x03\x04", &file[..]].concat()), Some(Rule::ZipStructure));
}

#[test]
fn zip64_end_records_must_agree_too() {
    let (data, directory, count) = parts(&good());
    let (size, offset) = (directory.len() as u64, data.len() as u64);
    let with = |patch: &dyn Fn(&mut Vec<u8>)| {
        let mut wide = [
            b"PK\x06\x06".as_slice(),
            &44u64.to_le_bytes(),
            &[0; 12],
            &(count as u64).to_le_bytes(),
            &(count as u64).to_le_bytes(),
            &size.to_le_bytes(),
            &offset.to_le_bytes(),
            b"PK\x06\x07\0\0\0\0",
            &(offset + size).to_le_bytes(),
            &1u32.to_le_bytes(),
        ]
        .concat();
        wide.extend(end(count, size as usize, offset as usize));
        patch(&mut wide);
        refusal(&[data.clone(), directory.clone(), wide].concat())
    };
    assert_eq!(with(&|_| {}), None);
    // Ones in the old record refer to the new one.
    assert_eq!(with(&|wide| wide[84..96].fill(0xff)), None);
    for byte in [4, 16, 20, 24, 32, 40, 48, 60, 64, 72, 80, 84, 86, 88, 92] {
        let refusal = with(&|wide| wide[byte] ^= 2);
        assert_eq!(refusal, Some(Rule::ZipStructure), "byte {byte}");
    }
}

#[test]
fn deflated_entries_are_described_and_their_pickle_is_inflated() {
    let deflated = |name: &str, data: &[u8], claimed: usize| {
        let level = flate2::Compression::best();
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
        encoder.write_all(data).expect("memory");
        let compressed = encoder.finish().expect("memory");
        let crc32 = entry(name, data).crc32;
        let claimed = u32::try_from(claimed).expect("a small size");
        Entry { crc32, deflated: Some(claimed), ..entry(name, &compressed) }
    };
    let pickle = pickle(&dict(&[("a", usual())]));
    let whole = |claimed: usize, storage: usize| {
        zip(&[
            deflated("x/data.pkl", &pickle, claimed),
            deflated("x/data/0", &six_floats(), storage),
        ])
    };
    let state_dict = read(&whole(pickle.len(), 24)).expect("a good checkpoint");
    let Encoding::Deflated { compressed_bytes } = state_dict.storages[0].encoding else {
        panic!("the storage is deflated")
    };
    assert!(compressed_bytes > 0 && state_dict.storages[0].record_bytes == 24);
    assert_eq!(refusal(&whole(pickle.len() + 1, 24)), Some(Rule::Inflate));
    assert_eq!(refusal(&whole(pickle.len() - 1, 24)), Some(Rule::Inflate));
    assert_eq!(refusal(&whole(pickle.len(), 1 << 20)), Some(Rule::Inflate));
}

#[test]
fn a_checksum_of_zero_was_never_computed() {
    let change = |crc32: u32| {
        move |e: &mut Entry| {
            e.crc32 = crc32;
        }
    };
    let mut entries = good();
    change(0)(&mut entries[1]);
    let state_dict = read(&zip(&entries)).expect("a good checkpoint");
    assert_eq!(state_dict.storages[0].crc32, None);
    change(0)(&mut entries[0]);
    assert_eq!(refusal(&zip(&entries)), None);
    change(1)(&mut entries[0]);
    assert_eq!(refusal(&zip(&entries)), Some(Rule::Checksum));
}

#[test]
fn many_entries_take_linear_time() {
    let mut all = good();
    all.extend((0..20_000).map(|number| entry(&format!("x/e{number}"), b"")));
    let file = zip(&all);
    let start = std::time::Instant::now();
    assert_eq!(refusal(&file), None);
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

#[test]
fn a_payload_is_not_read_late_where_its_descriptor_seems_to_lack_a_signature() {
    // The extra field claims the first four bytes of the payload (an empty field). So the data end
    // with the descriptor's signature, and what follows is a descriptor without one.
    let change = |e: &mut Entry| {
        (e.local.flags, e.central.flags) = (0x808, 0x808);
        e.local.extra = vec![0; 4];
        e.data = [vec![7; 20], b"PK\x07\x08".to_vec()].concat();
        e.behind = [e.crc32, 24, 24].map(u32::to_le_bytes).concat();
    };
    assert_eq!(refusal_after(change), Some(Rule::ZipStructure));
    let honest = |e: &mut Entry| {
        change(e);
        e.data = vec![7; 24];
    };
    assert_eq!(refusal_after(honest), None);
}

//! Reads the central directory, and checks every entry of it against every other and the file.

use std::collections::HashSet;

use crate::format::bytes::Cursor;
use crate::format::error::{FormatError, Rule};
use crate::format::inflate::MAX_RATIO;
use crate::format::read_at::ReadAt;
use crate::format::torch::zip::end_record;
use crate::format::torch::zip::entry::Entry;
use crate::format::torch::zip::entry_name;
use crate::format::torch::zip::headers::{Bad, CENTRAL_BYTES, Central, UNREADABLE};
use crate::format::torch::zip::local_headers;
use crate::tensor::{counted, escape};

/// Most entries. The largest models have some thousand tensors in a file.
const MAX_ENTRIES: u64 = 1 << 17;

/// Longest directory, in bytes.
const MAX_DIRECTORY_BYTES: u64 = 24 << 20;

/// All entries in the directory's order. Reads the directory and the headers, no payload.
///
/// # Errors
/// [`Rule::Truncated`], [`Rule::ZipStructure`], [`Rule::ZipOverlap`] and [`Rule::ZipUnsupported`]
/// as their words say; [`Rule::Inflate`] for an entry that claims more than deflate can hold.
pub(crate) fn read(source: &dyn ReadAt) -> Result<Vec<Entry>, FormatError> {
    let extent = end_record::find(source)?;
    let least = extent.count.checked_mul(CENTRAL_BYTES);
    let too_many = extent.count > MAX_ENTRIES || extent.size > MAX_DIRECTORY_BYTES;
    if too_many || least.is_none_or(|least| least > extent.size) {
        let found =
            format!("{} for {}", counted(extent.size, "byte"), counted(extent.count, "entry"));
        let expected =
            "a directory of at most 131072 entries and 24 MiB, with room for its entries";
        return Err(refuse(expected, found).at(extent.offset));
    }
    let mut bytes = vec![0; usize::try_from(extent.size).unwrap_or(0)];
    source
        .read_exact_at(extent.offset, &mut bytes)
        .map_err(|error| FormatError::read("zip directory", extent.offset, error))?;

    let mut cursor = Cursor::new(&bytes);
    let mut entries = Vec::with_capacity(usize::try_from(extent.count).unwrap_or(0));
    let mut seen = HashSet::new();
    for _ in 0..extent.count {
        let at = extent.offset.saturating_add(cursor.position() as u64);
        let (entry, name) = read_entry(&mut cursor).map_err(|error| error.at(at))?;
        if !seen.insert(entry_name::folded(name)) {
            let found = format!("`{}` again", escape(&entry.name));
            let error = FormatError::new(Rule::ZipOverlap, WHAT, "names that differ", found);
            return Err(error.at(at));
        }
        entries.push(entry);
    }
    if cursor.left() != 0 {
        let found = format!("{} more", counted(cursor.left() as u64, "byte"));
        return Err(refuse(counted(extent.count, "entry"), found).at(extent.offset));
    }
    local_headers::check(source, &mut entries, extent.offset)?;
    Ok(entries)
}

const WHAT: &str = "zip directory";

fn refuse(expected: impl Into<String>, found: impl Into<String>) -> FormatError {
    FormatError::new(Rule::ZipStructure, WHAT, expected, found)
}

/// The next entry, and its name where it stands in the directory.
fn read_entry<'a>(cursor: &mut Cursor<'a>) -> Result<(Entry, &'a str), FormatError> {
    let central = Central::read(cursor).map_err(|bad| match bad {
        Bad::Header => refuse("an entry", "other bytes, or fewer"),
        Bad::Extra => refuse("extra fields that add up", "others"),
        Bad::Zip64 => refuse("a zip64 field with what the entry lacks", "another"),
    })?;
    let name = entry_name::check(central.name).map_err(|found| refuse("a plain name", found))?;
    let named = |rule, expected: &str, found: String| {
        FormatError::new(rule, format!("zip entry `{}`", escape(name)), expected, found)
    };
    if central.disk != 0 {
        let found = format!("disk {}", central.disk);
        return Err(named(Rule::ZipStructure, "disk 0", found));
    }
    if central.flags & UNREADABLE != 0 {
        let found = format!("flags {:#06x}", central.flags);
        return Err(named(Rule::ZipUnsupported, "no encryption", found));
    }
    match central.method {
        0 if central.compressed != central.size => {
            let found = format!("{} and {}", central.compressed, central.size);
            return Err(named(Rule::ZipStructure, "equal sizes of a stored entry", found));
        }
        0 => {}
        8 if central.size > central.compressed.saturating_mul(MAX_RATIO) => {
            let found = format!("{} from {}", central.size, central.compressed);
            return Err(named(Rule::Inflate, "at most 1032 bytes for one", found));
        }
        8 => {}
        other => {
            let found = format!("method {other}");
            return Err(named(Rule::ZipUnsupported, "stored or deflated data", found));
        }
    }
    if name.ends_with('/') && central.size != 0 {
        return Err(named(Rule::ZipStructure, "an empty directory entry", "bytes".to_owned()));
    }
    let entry = Entry {
        name: name.to_owned(),
        flags: central.flags,
        method: central.method,
        crc32: central.crc32,
        compressed_bytes: central.compressed,
        size_bytes: central.size,
        header_offset: central.header_offset,
        data_offset: 0,
    };
    Ok((entry, name))
}

//! Reads the local headers: finds where each payload starts, and checks that they agree with the
//! directory.
//!
//! ```text
//! 0                                                            directory
//! | header name extra payload [descriptor] | header name ... | ^
//! ```
//!
//! Every byte before the directory belongs to exactly one entry. So nothing overlaps, nothing
//! hides between entries, and an entry that only the local headers know is found.

use crate::format::bytes::Cursor;
use crate::format::error::{FormatError, Rule};
use crate::format::read_at::ReadAt;
use crate::format::torch::zip::entry::Entry;
use crate::format::torch::zip::headers::{
    Bad, COMPRESSION_LEVEL, HAS_DESCRIPTOR, IN_ZIP64, LOCAL_BYTES, Local, zip64_field,
};
use crate::tensor::{counted, escape};

/// Checks the local header of every entry and fills in `data_offset`.
///
/// # Errors
/// [`Rule::ZipStructure`] where header and directory differ or bytes belong to no entry,
/// [`Rule::ZipOverlap`] where two entries claim the same bytes, [`Rule::Truncated`] past the end.
pub(super) fn check(
    source: &dyn ReadAt,
    entries: &mut [Entry],
    directory_offset: u64,
) -> Result<(), FormatError> {
    let mut order: Vec<&mut Entry> = entries.iter_mut().collect();
    order.sort_by_key(|entry| entry.header_offset);
    let starts: Vec<u64> = order.iter().map(|entry| entry.header_offset).collect();
    let ends = starts.iter().skip(1).copied().chain([directory_offset]);

    let first = starts.first().copied().unwrap_or(directory_offset);
    if first != 0 {
        let found = format!("one at byte {first}");
        return Err(refuse("zip archive", "an entry at byte 0", found));
    }
    let mut window = Window { source, start: 0, bytes: Vec::new() };
    for (entry, end) in order.into_iter().zip(ends) {
        check_one(&mut window, entry, end).map_err(|error| match error.offset {
            Some(_) => error,
            None => error.at(entry.header_offset),
        })?;
    }
    Ok(())
}

/// One entry, whose bytes must end at `end`.
fn check_one(window: &mut Window<'_>, entry: &mut Entry, end: u64) -> Result<(), FormatError> {
    let what = format!("zip entry `{}`", escape(&entry.name));
    let overlap = || {
        let found = format!("bytes after {end}");
        FormatError::new(Rule::ZipOverlap, &what, format!("an end at {end}"), found)
    };
    let add = |left: u64, right: u64| left.checked_add(right).filter(|sum| *sum <= end);

    let name_offset = add(entry.header_offset, LOCAL_BYTES).ok_or_else(overlap)?;
    let header = window.get(entry.header_offset, LOCAL_BYTES)?;
    let local = Local::read(header)
        .ok_or_else(|| refuse(&what, "a local header", "other bytes".to_owned()))?;
    let extra_offset = add(name_offset, u64::from(local.name_length)).ok_or_else(overlap)?;
    let data_offset = add(extra_offset, u64::from(local.extra_length)).ok_or_else(overlap)?;
    let name = window.get(name_offset, u64::from(local.name_length))?;
    if name != entry.name.as_bytes() {
        let found = format!("`{}`", escape(&String::from_utf8_lossy(name)));
        return Err(refuse(&what, "the same name in the local header", found));
    }
    let extra = window.get(extra_offset, u64::from(local.extra_length))?;
    if !headers_agree(&local, extra, entry) {
        return Err(refuse(&what, "a local header as the directory says", "another".to_owned()));
    }
    entry.data_offset = data_offset;
    let data_end = add(data_offset, entry.compressed_bytes).ok_or_else(overlap)?;
    let behind = end.saturating_sub(data_end);
    let descriptor_is_there = entry.flags & HAS_DESCRIPTOR != 0;
    // Writers leave the descriptor out after an entry without bytes, whatever the flag says.
    if behind == 0 && (!descriptor_is_there || entry.compressed_bytes == 0) {
        return Ok(());
    }
    if descriptor_is_there && matches!(behind, 12 | 16 | 20 | 24) {
        let descriptor = window.get(data_end, behind)?;
        let agrees = descriptor_agrees(descriptor, entry) == Some(true);
        // Without its signature a descriptor could be the rest of one whose signature was counted
        // as data: the payload would be read four bytes late.
        let mut late = || Ok(window.get(data_end.saturating_sub(4), 4)? == DESCRIPTOR_SIGNATURE);
        if agrees && !(unsigned(behind) && late()?) {
            return Ok(());
        }
    }
    let expected = if descriptor_is_there { "its data descriptor" } else { "the next entry" };
    Err(refuse(&what, expected, counted(behind, "other byte")).at(data_end))
}

/// Whether a local header (4.3.7, 4.4.4) repeats what the directory says. With a descriptor the
/// checksum and the sizes may be left open.
fn headers_agree(local: &Local, extra: &[u8], entry: &Entry) -> bool {
    let open = entry.flags & HAS_DESCRIPTOR != 0;
    if local.method != entry.method || (local.flags ^ entry.flags) & !COMPRESSION_LEVEL != 0 {
        return false;
    }
    if local.crc32 != entry.crc32 && !(open && local.crc32 == 0) {
        return false;
    }
    let field = match zip64_field(extra) {
        Ok(field) => field,
        Err(Bad::Header | Bad::Extra | Bad::Zip64) => return false,
    };
    let mut wide = Cursor::new(field.unwrap_or_default());
    for (narrow, value) in
        [(local.size, entry.size_bytes), (local.compressed, entry.compressed_bytes)]
    {
        let narrow = u64::from(narrow);
        // torch leaves the narrow fields 0 and still writes the wide ones (`docs/formats.md` A.3).
        let given = if narrow == IN_ZIP64 {
            match wide.u64() {
                Some(given) => given,
                None => return false,
            }
        } else {
            narrow
        };
        if given != value && !(open && given == 0) {
            return false;
        }
    }
    while let Some(given) = wide.u64() {
        let known = given == entry.size_bytes
            || given == entry.compressed_bytes
            || given == entry.header_offset
            || (open && given == 0);
        if !known {
            return false;
        }
    }
    wide.left() == 0 || wide.left() == 4
}

/// The signature that most writers put before a descriptor (4.3.9.3).
const DESCRIPTOR_SIGNATURE: &[u8] = b"PK\x07\x08";

/// Whether a descriptor of this length has no signature.
fn unsigned(descriptor_bytes: u64) -> bool {
    matches!(descriptor_bytes, 12 | 20)
}

/// Whether a data descriptor (4.3.9) of 12, 16, 20 or 24 bytes repeats what the directory says.
fn descriptor_agrees(bytes: &[u8], entry: &Entry) -> Option<bool> {
    let mut cursor = Cursor::new(bytes);
    // 12 and 20 bytes have no signature; 20 and 24 bytes have sizes of 64 bits.
    let (signed, wide) = (!unsigned(bytes.len() as u64), bytes.len() >= 20);
    if signed && cursor.take(4)? != DESCRIPTOR_SIGNATURE {
        return Some(false);
    }
    let crc32 = cursor.u32()?;
    let mut size = || if wide { cursor.u64() } else { cursor.u32().map(u64::from) };
    let compressed_bytes = size()?;
    let size_bytes = size()?;
    Some(
        crc32 == entry.crc32
            && compressed_bytes == entry.compressed_bytes
            && size_bytes == entry.size_bytes,
    )
}

fn refuse(what: &str, expected: &str, found: String) -> FormatError {
    FormatError::new(Rule::ZipStructure, what, expected, found)
}

/// Small reads in rising order, several of them served by one read of the source.
struct Window<'a> {
    source: &'a dyn ReadAt,
    start: u64,
    bytes: Vec<u8>,
}

/// Bytes read at once where the next header is far: a descriptor, a header and its name.
const FAR_BYTES: u64 = 512;

/// Bytes read at once where headers are close to each other.
const NEAR_BYTES: u64 = 16 << 10;

impl Window<'_> {
    /// `length` bytes from `offset` on.
    fn get(&mut self, offset: u64, length: u64) -> Result<&[u8], FormatError> {
        let inside = |start: u64, have: u64| {
            let skip = offset.checked_sub(start)?;
            skip.checked_add(length).filter(|end| *end <= have).map(|end| (skip, end))
        };
        let range = match inside(self.start, self.bytes.len() as u64) {
            Some(range) => range,
            None => {
                self.fill(offset, length)?;
                (0, length)
            }
        };
        let (Ok(start), Ok(end)) = (usize::try_from(range.0), usize::try_from(range.1)) else {
            return Ok(&[]);
        };
        Ok(self.bytes.get(start..end).unwrap_or_default())
    }

    fn fill(&mut self, offset: u64, length: u64) -> Result<(), FormatError> {
        let window_end = self.start.saturating_add(self.bytes.len() as u64);
        let near = offset <= window_end.saturating_add(NEAR_BYTES);
        let wanted = length.max(if near { NEAR_BYTES } else { FAR_BYTES });
        let there = self.source.len().saturating_sub(offset);
        self.bytes.clear();
        self.bytes.resize(usize::try_from(wanted.min(there).max(length)).unwrap_or(0), 0);
        self.start = offset;
        self.source
            .read_exact_at(offset, &mut self.bytes)
            .map_err(|error| FormatError::read("zip header", offset, error))
    }
}

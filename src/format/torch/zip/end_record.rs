//! The end of a zip archive: which end record counts, and where it says the directory is.
//!
//! ```text
//! ... entries | directory | zip64 end (56) | locator (20) | end (22) | comment | anything
//!             ^ offset    ^ offset + size                 ^ last signature in the file
//! ```
//!
//! The last end signature of the file is the one that counts, and the directory must end where the
//! end records begin: so a zip inside a payload is never taken for the archive, and an archive
//! with a second one in its comment or behind it is refused.

use crate::format::error::{FormatError, Rule};
use crate::format::read_at::ReadAt;
use crate::format::torch::zip::headers::{End, End64, IN_ZIP64, Locator};
use crate::tensor::counted;

/// Where the directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Byte position of the directory.
    pub(super) offset: u64,
    /// Its length in bytes.
    pub(super) size: u64,
    /// Entries in it.
    pub(super) count: u64,
}

/// Furthest from the file's end that an end record may start: its 22 bytes and the longest comment.
const SEARCH_BYTES: u64 = 22 + 0xffff;

/// Finds the end record and what it says.
///
/// # Errors
/// [`Rule::Truncated`] without an end record, [`Rule::ZipStructure`] for one that contradicts
/// itself, the zip64 records or the file, or for more than one.
pub(super) fn find(source: &dyn ReadAt) -> Result<Extent, FormatError> {
    let length = source.len();
    let tail_start = length.saturating_sub(SEARCH_BYTES);
    let mut tail = vec![0; usize::try_from(length.saturating_sub(tail_start)).unwrap_or(0)];
    source
        .read_exact_at(tail_start, &mut tail)
        .map_err(|error| FormatError::read("zip end record", tail_start, error))?;

    let signatures = tail.windows(4).enumerate().filter(|(_, four)| *four == End::SIGNATURE);
    let mut extent: Option<Extent> = None;
    for (start, _) in signatures.rev() {
        let offset = tail_start.saturating_add(start as u64);
        let bytes = tail.get(start..).unwrap_or_default();
        let here = read_end(source, bytes, offset);
        match (extent, here) {
            (None, here) => extent = Some(here?),
            (Some(_), Ok(_)) => {
                return Err(refuse("one end record", "a second one").at(offset));
            }
            // Four bytes of a payload that happen to be a signature.
            (Some(_), Err(_)) => {}
        }
    }
    extent.ok_or_else(|| {
        FormatError::new(Rule::Truncated, "zip archive", "an end record", "none")
            .at(length)
            .hint("the file is cut short; download or copy it again")
    })
}

fn read_end(source: &dyn ReadAt, bytes: &[u8], offset: u64) -> Result<Extent, FormatError> {
    let cut = |expected: String| {
        let found = format!("{} left", counted(bytes.len() as u64, "byte"));
        FormatError::new(Rule::Truncated, "zip end record", expected, found).at(offset)
    };
    let end = End::read(bytes).ok_or_else(|| cut("22 bytes".to_owned()))?;
    let left = bytes.len().saturating_sub(End::BYTES);
    if usize::from(end.comment_length) > left {
        return Err(cut(format!("22 bytes and a comment of {}", end.comment_length)));
    }
    let (extent, directory_end) = match read_zip64(source, &end, offset)? {
        Some(found) => found,
        None => {
            if end.disk != 0 || end.directory_disk != 0 || end.count_here != end.count {
                return Err(refuse("an archive on one disk", "several").at(offset));
            }
            if end.size == IN_ZIP64 || end.offset == IN_ZIP64 {
                return Err(refuse("a zip64 end record", "none").at(offset));
            }
            (Extent { offset: end.offset, size: end.size, count: end.count }, offset)
        }
    };
    if extent.offset.checked_add(extent.size) != Some(directory_end) {
        let found = format!("{} at {}", counted(extent.size, "byte"), extent.offset);
        return Err(refuse(format!("a directory that ends at {directory_end}"), found).at(offset));
    }
    Ok(extent)
}

/// The zip64 records in front of the end record at `offset`, and where the first of them starts.
fn read_zip64(
    source: &dyn ReadAt,
    end: &End,
    offset: u64,
) -> Result<Option<(Extent, u64)>, FormatError> {
    let Some(locator_offset) = offset.checked_sub(Locator::BYTES) else { return Ok(None) };
    let mut bytes = [0; 20];
    source
        .read_exact_at(locator_offset, &mut bytes)
        .map_err(|error| FormatError::read("zip64 locator", locator_offset, error))?;
    let Some(locator) = Locator::read(&bytes) else { return Ok(None) };
    if locator.disk != 0 || locator.disks > 1 {
        return Err(refuse("an archive on one disk", "several").at(locator_offset));
    }
    // An extensible data sector would stand between the two; none is read, so none is taken.
    if locator.offset.checked_add(End64::BYTES) != Some(locator_offset) {
        let found = format!("one at {}", locator.offset);
        return Err(refuse("a zip64 end record before its locator", found).at(locator_offset));
    }
    let mut bytes = [0; 56];
    source
        .read_exact_at(locator.offset, &mut bytes)
        .map_err(|error| FormatError::read("zip64 end record", locator.offset, error))?;
    let wide = End64::read(&bytes)
        .ok_or_else(|| refuse("a zip64 end record", "other bytes").at(locator.offset))?;
    if wide.record_size != End64::BYTES - 12 {
        let found = format!("{}", wide.record_size);
        return Err(refuse("a zip64 end record of 44 bytes", found).at(locator.offset));
    }
    let one_disk = wide.disk == 0
        && wide.directory_disk == 0
        && wide.count == wide.count_here
        && matches!(end.disk, 0 | 0xffff)
        && matches!(end.directory_disk, 0 | 0xffff);
    if !one_disk {
        return Err(refuse("an archive on one disk", "several").at(locator.offset));
    }
    let agree = |narrow: u64, wide: u64, ones: u64| narrow == wide || narrow == ones;
    if !agree(end.count, wide.count, 0xffff)
        || !agree(end.count_here, wide.count, 0xffff)
        || !agree(end.size, wide.size, IN_ZIP64)
        || !agree(end.offset, wide.offset, IN_ZIP64)
    {
        return Err(refuse("end records that agree", "two that differ").at(offset));
    }
    let extent = Extent { offset: wide.offset, size: wide.size, count: wide.count };
    Ok(Some((extent, locator.offset)))
}

fn refuse(expected: impl Into<String>, found: impl Into<String>) -> FormatError {
    FormatError::new(Rule::ZipStructure, "zip end record", expected, found)
}

//! Parses the headers and end records of a zip archive, field by field (APPNOTE 4.3 and 4.5). Only
//! lengths are checked here.

use crate::format::bytes::Cursor;

/// A 32-bit field of all ones: the value is in the zip64 extra field.
pub(super) const IN_ZIP64: u64 = 0xffff_ffff;

/// Flag bit 3: a data descriptor follows the data, and the local header need not know sizes.
pub(super) const HAS_DESCRIPTOR: u16 = 1 << 3;

/// Flag bits that say encryption or patched data: 0, 5, 6 and 13 (APPNOTE 4.4.4).
pub(super) const UNREADABLE: u16 = 1 | (1 << 5) | (1 << 6) | (1 << 13);

/// Flag bits 1 and 2, which tell how hard the writer compressed.
pub(super) const COMPRESSION_LEVEL: u16 = 0b110;

/// Bytes of a local header before its name.
pub(super) const LOCAL_BYTES: u64 = 30;

/// Bytes of a central header before its name.
pub(super) const CENTRAL_BYTES: u64 = 46;

/// 4.3.7 Local file header, to its lengths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Local {
    pub(super) flags: u16,
    pub(super) method: u16,
    pub(super) crc32: u32,
    pub(super) compressed: u32,
    pub(super) size: u32,
    pub(super) name_length: u16,
    pub(super) extra_length: u16,
}

impl Local {
    /// Reads one, signature included; `None` where it is no local header.
    pub(super) fn read(bytes: &[u8]) -> Option<Local> {
        let mut cursor = Cursor::new(bytes);
        if cursor.take(4)? != b"PK\x03\x04" {
            return None;
        }
        cursor.u16()?; // version needed
        let flags = cursor.u16()?;
        let method = cursor.u16()?;
        cursor.u32()?; // time and date
        Some(Local {
            flags,
            method,
            crc32: cursor.u32()?,
            compressed: cursor.u32()?,
            size: cursor.u32()?,
            name_length: cursor.u16()?,
            extra_length: cursor.u16()?,
        })
    }
}

/// 4.3.12 Central directory file header, with zip64 values resolved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Central<'a> {
    pub(super) flags: u16,
    pub(super) method: u16,
    pub(super) crc32: u32,
    pub(super) compressed: u64,
    pub(super) size: u64,
    pub(super) disk: u64,
    pub(super) header_offset: u64,
    pub(super) name: &'a [u8],
}

/// Why a central header could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// No signature, or the bytes end inside it.
    Header,
    /// The extra field's lengths do not add up.
    Extra,
    /// A value is said to be in a zip64 field that is not there, or has too much in it.
    Zip64,
}

impl<'a> Central<'a> {
    /// Reads the next one from `cursor`.
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Result<Central<'a>, Bad> {
        Central::fixed(cursor).ok_or(Bad::Header).and_then(|(central, extra)| central.zip64(extra))
    }

    fn fixed(cursor: &mut Cursor<'a>) -> Option<(Central<'a>, &'a [u8])> {
        if cursor.take(4)? != b"PK\x01\x02" {
            return None;
        }
        cursor.u32()?; // version made by, version needed
        let flags = cursor.u16()?;
        let method = cursor.u16()?;
        cursor.u32()?; // time and date
        let crc32 = cursor.u32()?;
        let compressed = u64::from(cursor.u32()?);
        let size = u64::from(cursor.u32()?);
        let name_length = usize::from(cursor.u16()?);
        let extra_length = usize::from(cursor.u16()?);
        let comment_length = usize::from(cursor.u16()?);
        let disk = u64::from(cursor.u16()?);
        cursor.take(6)?; // internal and external attributes: nothing is ever extracted
        let header_offset = u64::from(cursor.u32()?);
        let name = cursor.take(name_length)?;
        let extra = cursor.take(extra_length)?;
        cursor.take(comment_length)?;
        let central = Central { flags, method, crc32, compressed, size, disk, header_offset, name };
        Some((central, extra))
    }

    /// 4.5.3: the field holds, in this order, the values whose 32-bit (disk: 16-bit) form is ones.
    fn zip64(mut self, extra: &[u8]) -> Result<Central<'a>, Bad> {
        let field = zip64_field(extra)?;
        let mut values = Cursor::new(field.unwrap_or_default());
        for value in [&mut self.size, &mut self.compressed, &mut self.header_offset] {
            if *value == IN_ZIP64 {
                *value = values.u64().ok_or(Bad::Zip64)?;
            }
        }
        if self.disk == 0xffff {
            self.disk = u64::from(values.u32().ok_or(Bad::Zip64)?);
        }
        if values.left() == 0 { Ok(self) } else { Err(Bad::Zip64) }
    }
}

/// The zip64 field (id 1) of an extra field, where it has one.
pub(super) fn zip64_field(extra: &[u8]) -> Result<Option<&[u8]>, Bad> {
    let mut cursor = Cursor::new(extra);
    let mut found = None;
    // Fewer than four bytes can't be a field; tools that align pad with zeros.
    while cursor.left() >= 4 {
        let (Some(id), Some(length)) = (cursor.u16(), cursor.u16()) else {
            return Err(Bad::Extra);
        };
        let field = cursor.take(usize::from(length)).ok_or(Bad::Extra)?;
        if id == 1 && found.replace(field).is_some() {
            return Err(Bad::Zip64);
        }
    }
    let padding = cursor.take(cursor.left()).unwrap_or_default();
    if padding.iter().all(|byte| *byte == 0) { Ok(found) } else { Err(Bad::Extra) }
}

/// 4.3.16 End of central directory record.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) disk: u16,
    pub(super) directory_disk: u16,
    pub(super) count_here: u64,
    pub(super) count: u64,
    pub(super) size: u64,
    pub(super) offset: u64,
    pub(super) comment_length: u16,
}

impl End {
    /// Bytes without the comment.
    pub(super) const BYTES: usize = 22;

    /// The signature.
    pub(super) const SIGNATURE: &'static [u8] = b"PK\x05\x06";

    /// Reads one, signature included.
    pub(super) fn read(bytes: &[u8]) -> Option<End> {
        let mut cursor = Cursor::new(bytes);
        if cursor.take(4)? != End::SIGNATURE {
            return None;
        }
        Some(End {
            disk: cursor.u16()?,
            directory_disk: cursor.u16()?,
            count_here: u64::from(cursor.u16()?),
            count: u64::from(cursor.u16()?),
            size: u64::from(cursor.u32()?),
            offset: u64::from(cursor.u32()?),
            comment_length: cursor.u16()?,
        })
    }
}

/// 4.3.15 Zip64 end of central directory locator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Locator {
    pub(super) disk: u32,
    pub(super) offset: u64,
    pub(super) disks: u32,
}

impl Locator {
    /// Bytes of the record.
    pub(super) const BYTES: u64 = 20;

    /// Reads one, signature included.
    pub(super) fn read(bytes: &[u8]) -> Option<Locator> {
        let mut cursor = Cursor::new(bytes);
        if cursor.take(4)? != b"PK\x06\x07" {
            return None;
        }
        Some(Locator { disk: cursor.u32()?, offset: cursor.u64()?, disks: cursor.u32()? })
    }
}

/// 4.3.14 Zip64 end of central directory record, version 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct End64 {
    pub(super) record_size: u64,
    pub(super) disk: u32,
    pub(super) directory_disk: u32,
    pub(super) count_here: u64,
    pub(super) count: u64,
    pub(super) size: u64,
    pub(super) offset: u64,
}

impl End64 {
    /// Bytes of the record without an extensible data sector.
    pub(super) const BYTES: u64 = 56;

    /// Reads one, signature included.
    pub(super) fn read(bytes: &[u8]) -> Option<End64> {
        let mut cursor = Cursor::new(bytes);
        if cursor.take(4)? != b"PK\x06\x06" {
            return None;
        }
        let record_size = cursor.u64()?;
        cursor.u32()?; // version made by, version needed
        Some(End64 {
            record_size,
            disk: cursor.u32()?,
            directory_disk: cursor.u32()?,
            count_here: cursor.u64()?,
            count: cursor.u64()?,
            size: cursor.u64()?,
            offset: cursor.u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zip64_field_is_found_among_others() {
        let extra = [b'F', b'B', 2, 0, b'Z', b'Z', 1, 0, 1, 0, 9, 0, 0];
        assert_eq!(zip64_field(&extra), Ok(Some(&[9u8][..])));
        assert_eq!(zip64_field(b"FB\x05\x00Z"), Err(Bad::Extra));
        assert_eq!(zip64_field(&[1, 0, 0, 0, 1, 0, 0, 0]), Err(Bad::Zip64));
        assert_eq!(zip64_field(&[7]), Err(Bad::Extra));
    }
}

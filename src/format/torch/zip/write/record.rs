//! Writes the zip structures of one record, byte for byte as `torch.save` 2.11 does.
//!
//! ```text
//! local header 30 | folder/name | zip64 extra | "FB" n, n x "Z" | payload | descriptor
//!                                                               ^ a multiple of 64
//! ```
//!
//! The sizes and the CRC-32 follow the payload in a data descriptor, so that everything before it
//! is known before the data. A record is *big* from 2^32 - 1 bytes on and *far* when it starts at or
//! after byte 2^32 - 1; either one brings the zip64 extra and the long descriptor.
//!
//! Sources: PKWARE APPNOTE 4.3.7 (local header), 4.3.9 (data descriptor), 4.3.12 (central
//! directory), 4.5.3 (zip64 extra); torch 2.11 `caffe2/serialize/inline_container.cc` (`getPadding`)
//! and its miniz 3, from which the oddities come: version 0, date 0, a zip64 extra in the local
//! header with the compressed size still 0 and with the header's offset.

use crate::format::emit_error::EmitError;

/// First value that 32-bit fields can't hold (they hold the marker itself).
pub(super) const U32_LIMIT: u64 = 0xffff_ffff;

/// Payloads start at multiples of this, so that mapped storages are aligned.
const ALIGNMENT: u64 = 64;

const LOCAL_HEADER_BYTES: u64 = 30;
const CENTRAL_HEADER_BYTES: u64 = 46;

/// Where one record lies.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// Name without the top folder.
    pub(super) name: String,
    /// Payload, in bytes.
    pub(super) size_bytes: u64,
    /// Position of the local header.
    pub(super) header_offset: u64,
    /// Position of the payload.
    pub(super) payload_offset: u64,
    /// Bytes of folder, slash and name.
    full_name_bytes: u16,
}

impl Record {
    /// A record whose local header is at `header_offset`.
    ///
    /// # Errors
    /// A name above 65,535 bytes with its folder; a position above 2^63.
    pub(super) fn new(
        folder: &str,
        name: String,
        size_bytes: u64,
        header_offset: u64,
    ) -> Result<Record, EmitError> {
        let full = (folder.len() as u64).saturating_add(1).saturating_add(name.len() as u64);
        let full_name_bytes =
            u16::try_from(full).map_err(|_| EmitError::FolderTooLong { bytes: full })?;
        let mut record =
            Record { name, size_bytes, header_offset, payload_offset: 0, full_name_bytes };
        // 30 + 65535 + 28 + 4 can't overflow; the sum with the offset can.
        let before = LOCAL_HEADER_BYTES
            + u64::from(full_name_bytes)
            + record.local_zip64().len() as u64
            + PADDING_HEADER_BYTES;
        record.payload_offset = header_offset
            .checked_add(before)
            .and_then(|start| start.checked_next_multiple_of(ALIGNMENT))
            .ok_or(EmitError::TooLarge)?;
        Ok(record)
    }

    fn is_big(&self) -> bool {
        self.size_bytes >= U32_LIMIT
    }

    fn is_far(&self) -> bool {
        self.header_offset >= U32_LIMIT
    }

    /// Position of the data descriptor.
    ///
    /// # Errors
    /// [`EmitError::TooLarge`] where it overflows.
    pub(super) fn descriptor_offset(&self) -> Result<u64, EmitError> {
        self.payload_offset.checked_add(self.size_bytes).ok_or(EmitError::TooLarge)
    }

    /// Length of the data descriptor, in bytes: 0, 16 or 24.
    fn descriptor_bytes(&self) -> u64 {
        match (self.size_bytes, self.is_big() || self.is_far()) {
            (0, _) => 0,
            (_, false) => 16,
            (_, true) => 24,
        }
    }

    /// Position of what follows the record.
    ///
    /// # Errors
    /// [`EmitError::TooLarge`] where it overflows.
    pub(super) fn end(&self) -> Result<u64, EmitError> {
        self.descriptor_offset()?.checked_add(self.descriptor_bytes()).ok_or(EmitError::TooLarge)
    }

    /// Length of the central directory's entry, in bytes.
    pub(super) fn central_bytes(&self) -> u64 {
        CENTRAL_HEADER_BYTES + u64::from(self.full_name_bytes) + self.central_zip64().len() as u64
    }

    /// Bit 3: a descriptor follows (not for 0 bytes); bit 11: the name is UTF-8.
    fn flags(&self) -> u16 {
        if self.size_bytes == 0 { 0x0800 } else { 0x0808 }
    }

    fn local_zip64(&self) -> Vec<u8> {
        let mut body = Vec::new();
        if self.is_big() {
            body.extend(self.size_bytes.to_le_bytes());
            body.extend(0u64.to_le_bytes());
        }
        if self.is_far() {
            body.extend(self.header_offset.to_le_bytes());
        }
        zip64_extra(body)
    }

    fn central_zip64(&self) -> Vec<u8> {
        let mut body = Vec::new();
        if self.is_big() {
            body.extend(self.size_bytes.to_le_bytes());
            body.extend(self.size_bytes.to_le_bytes());
        }
        if self.is_far() {
            body.extend(self.header_offset.to_le_bytes());
        }
        zip64_extra(body)
    }

    /// Local header, name, extras: everything up to the payload.
    pub(super) fn local_header(&self, folder: &str) -> Vec<u8> {
        let zip64 = self.local_zip64();
        let before = LOCAL_HEADER_BYTES
            + u64::from(self.full_name_bytes)
            + zip64.len() as u64
            + PADDING_HEADER_BYTES;
        // Below 64, by the rounding in `new`.
        let padding = (self.payload_offset - self.header_offset - before) as u16;
        let mut out = Vec::new();
        out.extend(b"PK\x03\x04");
        out.extend(0u16.to_le_bytes());
        out.extend(self.flags().to_le_bytes());
        // method, time, date, CRC-32, both sizes
        out.extend([0; 18]);
        out.extend(self.full_name_bytes.to_le_bytes());
        out.extend((zip64.len() as u16 + PADDING_HEADER_BYTES as u16 + padding).to_le_bytes());
        self.push_full_name(folder, &mut out);
        out.extend(zip64);
        out.extend(b"FB");
        out.extend(padding.to_le_bytes());
        out.resize(out.len() + usize::from(padding), b'Z');
        out
    }

    /// The data descriptor; nothing for a record of 0 bytes.
    pub(super) fn descriptor(&self, crc32: u32) -> Vec<u8> {
        let mut out = Vec::new();
        if self.size_bytes == 0 {
            return out;
        }
        out.extend(b"PK\x07\x08");
        out.extend(crc32.to_le_bytes());
        if self.is_big() || self.is_far() {
            out.extend(self.size_bytes.to_le_bytes());
            out.extend(self.size_bytes.to_le_bytes());
        } else {
            out.extend(low32(self.size_bytes).to_le_bytes());
            out.extend(low32(self.size_bytes).to_le_bytes());
        }
        out
    }

    /// Appends the central directory's entry.
    pub(super) fn push_central(&self, folder: &str, crc32: u32, out: &mut Vec<u8>) {
        let zip64 = self.central_zip64();
        let crc32 = if self.size_bytes == 0 { 0 } else { crc32 };
        out.extend(b"PK\x01\x02");
        // version made by, version needed
        out.extend([0; 4]);
        out.extend(self.flags().to_le_bytes());
        // method, time, date
        out.extend([0; 6]);
        out.extend(crc32.to_le_bytes());
        out.extend(low32(self.size_bytes).to_le_bytes());
        out.extend(low32(self.size_bytes).to_le_bytes());
        out.extend(self.full_name_bytes.to_le_bytes());
        out.extend((zip64.len() as u16).to_le_bytes());
        // comment length, disk, internal and external attributes
        out.extend([0; 10]);
        out.extend(low32(self.header_offset).to_le_bytes());
        self.push_full_name(folder, out);
        out.extend(zip64);
    }

    fn push_full_name(&self, folder: &str, out: &mut Vec<u8>) {
        out.extend(folder.as_bytes());
        out.push(b'/');
        out.extend(self.name.as_bytes());
    }
}

/// Signature and length of the padding extra.
const PADDING_HEADER_BYTES: u64 = 4;

/// Length of the end records, in bytes.
pub(super) const END_BYTES: u64 = 56 + 20 + 22;

/// zip64 end record (APPNOTE 4.3.14), its locator (4.3.15) and the end record (4.3.16). torch writes
/// all three, also for small files.
pub(super) fn end_records(n_records: u64, directory_offset: u64, directory_bytes: u64) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(b"PK\x06\x06");
    out.extend(44u64.to_le_bytes());
    out.extend(0x031e_u16.to_le_bytes());
    out.extend(0x002d_u16.to_le_bytes());
    out.extend([0; 8]);
    out.extend(n_records.to_le_bytes());
    out.extend(n_records.to_le_bytes());
    out.extend(directory_bytes.to_le_bytes());
    out.extend(directory_offset.to_le_bytes());
    out.extend(b"PK\x06\x07");
    out.extend([0; 4]);
    out.extend((directory_offset + directory_bytes).to_le_bytes());
    out.extend(1u32.to_le_bytes());
    let n_short = u16::try_from(n_records).unwrap_or(u16::MAX);
    out.extend(b"PK\x05\x06");
    out.extend([0; 4]);
    out.extend(n_short.to_le_bytes());
    out.extend(n_short.to_le_bytes());
    out.extend(low32(directory_bytes).to_le_bytes());
    out.extend(low32(directory_offset).to_le_bytes());
    out.extend([0; 2]);
    out
}

/// Header id 1 and length before a body; nothing where there is no body.
fn zip64_extra(body: Vec<u8>) -> Vec<u8> {
    if body.is_empty() {
        return body;
    }
    let mut out = vec![1, 0];
    out.extend((body.len() as u16).to_le_bytes());
    out.extend(body);
    out
}

/// The value, or the marker that says "see the zip64 extra".
fn low32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

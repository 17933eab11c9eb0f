//! `Entry`: one entry of an archive, as the central directory and its local header have it.

use crate::format::state_dict::Encoding;

/// One entry of an archive.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Name as it stands in the directory, checked by [`entry_name::check`](super::entry_name::check).
    pub(crate) name: String,
    /// Flags, which the local header must repeat.
    pub(super) flags: u16,
    /// Compression method: 0 or 8.
    pub(super) method: u16,
    /// CRC-32 of the decoded bytes; 0 over bytes that are there means that it was not computed.
    pub(crate) crc32: u32,
    /// Bytes in the file.
    pub(crate) compressed_bytes: u64,
    /// Bytes once decoded.
    pub(crate) size_bytes: u64,
    /// Position of the local header.
    pub(super) header_offset: u64,
    /// Position of the first byte of data.
    pub(crate) data_offset: u64,
}

impl Entry {
    /// How the bytes are stored.
    pub(crate) fn encoding(&self) -> Encoding {
        match self.method {
            0 => Encoding::Stored,
            _ => Encoding::Deflated { compressed_bytes: self.compressed_bytes },
        }
    }

    /// The CRC-32, where one was computed.
    pub(crate) fn known_crc32(&self) -> Option<u32> {
        if self.crc32 == 0 && self.size_bytes > 0 { None } else { Some(self.crc32) }
    }

    /// Whether it is a directory.
    pub(crate) fn is_directory(&self) -> bool {
        self.name.ends_with('/')
    }
}

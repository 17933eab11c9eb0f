//! Lays out a whole torch archive before any data exists.
//!
//! ```text
//! data.pkl | .format_version | .storage_alignment | byteorder | data/0 | data/1 | ... | version
//! | .data/serialization_id | central directory | zip64 end, locator, end
//! ```
//!
//! Names and sizes fix every offset and the length of the file. So a file can be allocated at once,
//! payloads can be written in place in any order by any number of threads, and what depends on the
//! data (descriptors, the id, the directory) is written last:
//!
//! 1. [`ArchiveLayout::new`], allocate [`ArchiveLayout::total_bytes`];
//! 2. write the [`head_pieces`](ArchiveLayout::head_pieces);
//! 3. write every storage at its [offset](ArchiveLayout::storage_offsets), taking its
//!    CRC-32 and its first bytes;
//! 4. write the [`tail_pieces`](ArchiveLayout::tail_pieces).
//!
//! Head, payloads and tail cover every byte once. Records are stored, never compressed.
//!
//! Source: torch 2.11 `caffe2/serialize/inline_container.cc` (`PyTorchStreamWriter`) and
//! `torch/serialization.py` (`_save`).

use std::collections::HashMap;

use crate::format::emit_error::EmitError;
use crate::tensor::crc32;

use crate::format::torch::zip::write::record::{END_BYTES, Record, end_records};
use crate::format::torch::zip::write::serialization_id::{
    ChecksumHash, MAX_RECORDS, serialization_id,
};

/// Length of the serialization id, in bytes: two u64 of 20 digits.
const ID_BYTES: u64 = 40;

/// Records beside the storages: four before, two after.
const N_FIXED: usize = 6;

/// Bytes to be written at a position of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Position in the file.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What the end of the file needs of one written storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageSum {
    /// CRC-32 (zip polynomial, ISO-HDLC) of all its bytes; 0 for no bytes.
    pub crc32: u32,
    /// Its first eight bytes; a shorter storage is filled up with zeros.
    pub first_bytes: [u8; 8],
}

impl StorageSum {
    /// The sum of a storage that is in memory as a whole.
    pub fn of(bytes: &[u8]) -> StorageSum {
        let mut first_bytes = [0; 8];
        for (slot, byte) in first_bytes.iter_mut().zip(bytes) {
            *slot = *byte;
        }
        StorageSum { crc32: crc32(bytes), first_bytes }
    }
}

/// Every offset of one archive.
#[derive(Clone, Debug)]
pub(crate) struct ArchiveLayout {
    folder: String,
    records: Vec<Record>,
    /// Payloads that are known from the start, by record.
    fixed: HashMap<usize, Vec<u8>>,
    directory_offset: u64,
    directory_bytes: u64,
    total_bytes: u64,
}

/// Index of the record `data/0`.
const FIRST_STORAGE: usize = 4;

impl ArchiveLayout {
    /// An archive with this top folder, pickle, and storages `data/0`, `data/1`, ... of these sizes
    /// in bytes.
    ///
    /// # Errors
    /// A folder of more than about 65,500 bytes, more than [`MAX_RECORDS`] records, a file above
    /// 2^63 - 1 bytes.
    pub(crate) fn new(
        folder: &str,
        data_pkl: Vec<u8>,
        storage_bytes: &[u64],
    ) -> Result<ArchiveLayout, EmitError> {
        let limit = MAX_RECORDS - N_FIXED;
        if storage_bytes.len() > limit {
            return Err(EmitError::TooMany { count: storage_bytes.len(), limit });
        }
        let mut fixed = HashMap::new();
        let mut named: Vec<(String, u64)> = Vec::with_capacity(storage_bytes.len() + N_FIXED);
        let mut known = |named: &mut Vec<(String, u64)>, name: &str, bytes: Vec<u8>| {
            let size_bytes = bytes.len() as u64;
            fixed.insert(named.len(), bytes);
            named.push((name.to_owned(), size_bytes));
        };
        known(&mut named, "data.pkl", data_pkl);
        known(&mut named, ".format_version", b"1".to_vec());
        known(&mut named, ".storage_alignment", b"64".to_vec());
        known(&mut named, "byteorder", b"little".to_vec());
        named.extend(
            storage_bytes.iter().enumerate().map(|(key, size)| (format!("data/{key}"), *size)),
        );
        known(&mut named, "version", b"3\n".to_vec());
        named.push((".data/serialization_id".to_owned(), ID_BYTES));

        let mut records = Vec::with_capacity(named.len());
        let mut position = 0;
        let mut directory_bytes = 0u64;
        for (name, size_bytes) in named {
            let record = Record::new(folder, name, size_bytes, position)?;
            position = record.end()?;
            // At most MAX_RECORDS x 65,609 bytes.
            directory_bytes += record.central_bytes();
            records.push(record);
        }
        let total_bytes = position
            .checked_add(directory_bytes)
            .and_then(|end| end.checked_add(END_BYTES))
            .filter(|total| i64::try_from(*total).is_ok())
            .ok_or(EmitError::TooLarge)?;
        Ok(ArchiveLayout {
            folder: folder.to_owned(),
            records,
            fixed,
            directory_offset: position,
            directory_bytes,
            total_bytes,
        })
    }

    /// Length of the finished file, in bytes.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Number of storages.
    pub(crate) fn n_storages(&self) -> usize {
        self.records.len() - N_FIXED
    }

    /// Positions of the payloads of `data/0`, `data/1`, ...: multiples of 64.
    pub(crate) fn storage_offsets(&self) -> impl Iterator<Item = u64> + '_ {
        let storages = self.records.iter().skip(FIRST_STORAGE).take(self.n_storages());
        storages.map(|record| record.payload_offset)
    }

    /// What can be written before the data: all local headers, the pickle and the other fixed
    /// records. In file order; neighbours are joined.
    pub(crate) fn head_pieces(&self) -> Vec<Piece> {
        let mut pieces = Pieces::default();
        for (position, record) in self.records.iter().enumerate() {
            pieces.push(record.header_offset, &record.local_header(&self.folder));
            if let Some(bytes) = self.fixed.get(&position) {
                pieces.append(bytes);
                pieces.append(&record.descriptor(crc32(bytes)));
            }
        }
        pieces.0
    }

    /// What depends on the data: the storages' descriptors, the id, the directory, the end records.
    /// `sums` are those of the storages by key. In file order; neighbours are joined.
    ///
    /// # Errors
    /// [`EmitError::ChecksumCount`] unless there is one sum per storage.
    pub(crate) fn tail_pieces(&self, sums: &[StorageSum]) -> Result<Vec<Piece>, EmitError> {
        if sums.len() != self.n_storages() {
            let expected = self.n_storages();
            return Err(EmitError::ChecksumCount { expected, found: sums.len() });
        }
        let mut pieces = Pieces::default();
        let mut directory = Vec::new();
        let mut checksums = ChecksumHash::default();
        let mut storage_sums = sums.iter();
        for (position, record) in self.records.iter().enumerate() {
            let is_storage = !self.fixed.contains_key(&position);
            let sum = match self.fixed.get(&position) {
                Some(bytes) => StorageSum::of(bytes),
                None => match storage_sums.next() {
                    Some(sum) => *sum,
                    // The id, last of all: made from those before it.
                    None => {
                        let names = self.records.iter().take(position);
                        let id =
                            serialization_id(names.map(|record| record.name.as_str()), checksums);
                        pieces.push(record.payload_offset, id.as_bytes());
                        StorageSum::of(id.as_bytes())
                    }
                },
            };
            checksums.record(sum.crc32, record.size_bytes, sum.first_bytes);
            if is_storage {
                pieces.push(record.descriptor_offset()?, &record.descriptor(sum.crc32));
            }
            record.push_central(&self.folder, sum.crc32, &mut directory);
        }
        pieces.push(self.directory_offset, &directory);
        pieces.append(&end_records(
            self.records.len() as u64,
            self.directory_offset,
            self.directory_bytes,
        ));
        Ok(pieces.0)
    }
}

/// Pieces in file order; neighbours are joined.
#[derive(Default)]
struct Pieces(Vec<Piece>);

impl Pieces {
    fn push(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        match self.0.last_mut() {
            Some(last) if last.offset + last.bytes.len() as u64 == offset => {
                last.bytes.extend_from_slice(bytes);
            }
            _ => self.0.push(Piece { offset, bytes: bytes.to_vec() }),
        }
    }

    /// Appends to the last piece.
    fn append(&mut self, bytes: &[u8]) {
        if let Some(last) = self.0.last_mut() {
            last.bytes.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUR_GIB: u64 = 1 << 32;

    fn sums(count: usize) -> Vec<StorageSum> {
        vec![StorageSum { crc32: 0x0102_0304, first_bytes: [0; 8] }; count]
    }

    /// Head, payloads and tail as (offset, length), sorted, without empty ones.
    fn ranges(layout: &ArchiveLayout, storage_bytes: &[u64]) -> Vec<(u64, u64)> {
        let tail = layout.tail_pieces(&sums(storage_bytes.len())).expect("one sum per storage");
        let mut ranges: Vec<(u64, u64)> = layout
            .head_pieces()
            .iter()
            .chain(&tail)
            .map(|piece| (piece.offset, piece.bytes.len() as u64))
            .chain(layout.storage_offsets().zip(storage_bytes.iter().copied()))
            .filter(|(_, length)| *length > 0)
            .collect();
        ranges.sort_unstable();
        ranges
    }

    #[test]
    fn head_payloads_and_tail_cover_every_byte_once_whatever_the_sizes() {
        let size_cases: [&[u64]; 6] = [
            &[],
            &[0],
            &[1, 0, 0, 64, 63, 65],
            &[FOUR_GIB - 2, 3],
            &[FOUR_GIB - 1, 0, 3],
            &[FOUR_GIB / 2, FOUR_GIB / 2 + 100, 5, FOUR_GIB + 9, 0, 7],
        ];
        for sizes in size_cases {
            for folder_length in 1..140 {
                let folder = "f".repeat(folder_length);
                let layout = ArchiveLayout::new(&folder, vec![b'.'; 9], sizes).expect("valid");
                let mut position = 0;
                for (offset, length) in ranges(&layout, sizes) {
                    assert_eq!(offset, position, "{sizes:?}, folder of {folder_length}");
                    position += length;
                }
                assert_eq!(position, layout.total_bytes());
                assert!(layout.storage_offsets().all(|offset| offset % 64 == 0));
            }
        }
    }

    #[test]
    fn sizes_that_overflow_are_refused_not_wrapped() {
        for sizes in [&[u64::MAX][..], &[u64::MAX - 4096], &[1 << 63], &[1 << 62, 1 << 62]] {
            assert_eq!(
                ArchiveLayout::new("archive", Vec::new(), sizes).err(),
                Some(EmitError::TooLarge)
            );
        }
    }

    #[test]
    fn a_name_beyond_the_zips_16_bits_is_refused() {
        let folder = "f".repeat(65_530);
        assert!(matches!(
            ArchiveLayout::new(&folder, Vec::new(), &[]).err(),
            Some(EmitError::FolderTooLong { .. })
        ));
    }

    #[test]
    fn a_missing_checksum_is_refused() {
        let layout = ArchiveLayout::new("archive", Vec::new(), &[1, 2]).expect("valid");
        assert_eq!(
            layout.tail_pieces(&sums(1)).err(),
            Some(EmitError::ChecksumCount { expected: 2, found: 1 })
        );
    }
}

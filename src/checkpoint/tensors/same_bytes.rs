//! Compares two tensors of a checkpoint, by their CRCs or by reading both.

use crc_fast::CrcAlgorithm::{Crc32IsoHdlc, Crc64Nvme};
use crc_fast::Digest;

use crate::checkpoint::files::source::FileSource;
use crate::checkpoint::tensors::inventory::{Inventory, StorageEntry, TensorEntry};
use crate::error::{Error, Kind, Result};
use crate::format::{Encoding, ReadAt, inflate_pieces};

/// Bytes read at a time.
const CHUNK: u64 = 256 << 10;

/// Whether dtype, shape and bytes of two tensors are equal. Where each tensor is all of its record
/// and both records have a CRC, the CRCs are compared (the merge checks them when it reads the
/// data); else the bytes are read.
///
/// Tensors that are not contiguous count as equal only as the same view of equal storages.
///
/// # Errors
/// [`Kind::Io`] where reading fails, [`Kind::Data`] for broken data.
pub(crate) fn same_bytes(
    files: &[FileSource],
    inventory: &Inventory,
    a: &TensorEntry,
    b: &TensorEntry,
) -> Result<bool> {
    let storage = |tensor: &TensorEntry| inventory.storages.get(tensor.storage);
    let (Some(storage_a), Some(storage_b)) = (storage(a), storage(b)) else { return Ok(false) };
    let swapped = storage_a.byte_order != storage_b.byte_order && a.dtype.swap_bytes() > 1;
    if a.dtype != b.dtype || a.layout.shape != b.layout.shape || swapped {
        return Ok(false);
    }
    let (range_a, range_b) = match (range(a), range(b)) {
        (Some(range_a), Some(range_b)) => (range_a, range_b),
        _ if a.layout == b.layout && storage_a.size_bytes == storage_b.size_bytes => {
            ((0, storage_a.size_bytes), (0, storage_b.size_bytes))
        }
        _ => return Ok(false),
    };
    if let (Some(a), Some(b)) = (whole_crc(storage_a, range_a), whole_crc(storage_b, range_b)) {
        return Ok(a == b);
    }
    Ok(digest(files, storage_a, range_a)? == digest(files, storage_b, range_b)?)
}

/// First byte and length, in its storage, of a contiguous tensor.
fn range(tensor: &TensorEntry) -> Option<(u64, u64)> {
    let item = tensor.dtype.size_bytes();
    let start = tensor.layout.storage_offset.checked_mul(item)?;
    let length = tensor.layout.numel()?.checked_mul(item)?;
    tensor.layout.is_contiguous().then_some((start, length))
}

/// The record's CRC, where the range is the whole record.
fn whole_crc(storage: &StorageEntry, range: (u64, u64)) -> Option<u32> {
    storage.crc32.filter(|_| range == (0, storage.record_bytes))
}

/// Two CRCs of different polynomials, 96 bits, of a range of a storage.
fn digest(
    files: &[FileSource],
    storage: &StorageEntry,
    (start, length): (u64, u64),
) -> Result<(u64, u64)> {
    let lost = || Error::new(Kind::Internal, "a storage without a file");
    let file = files.get(storage.file).ok_or_else(lost)?;
    let mut digests = [Digest::new(Crc32IsoHdlc), Digest::new(Crc64Nvme)];
    let mut take = |bytes: &[u8]| digests.iter_mut().for_each(|digest| digest.update(bytes));
    let end = start.saturating_add(length);
    match storage.encoding {
        Encoding::Stored => {
            let mut buffer = Vec::new();
            let mut at = start;
            while at < end {
                let step = (end - at).min(CHUNK);
                buffer.resize(usize::try_from(step).unwrap_or(0), 0);
                file.read_exact_at(storage.file_offset.saturating_add(at), &mut buffer)
                    .map_err(|error| file.read_error("cannot read checkpoint", error))?;
                take(&buffer);
                at += step;
            }
        }
        Encoding::Deflated { compressed_bytes } => {
            let mut at = 0u64;
            let mut sink = |piece: &[u8]| {
                let inside = |place: u64| {
                    let place = place.saturating_sub(at).min(piece.len() as u64);
                    usize::try_from(place).unwrap_or(piece.len())
                };
                take(piece.get(inside(start)..inside(end)).unwrap_or_default());
                at += piece.len() as u64;
                Ok(())
            };
            let (offset, size) = (storage.file_offset, storage.record_bytes);
            inflate_pieces(file, offset, compressed_bytes, size, &mut sink)
                .map_err(|error| file.format_error(error))?;
        }
    }
    Ok((digests[0].finalize(), digests[1].finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ByteOrder;
    use crate::tensor::{DType, Layout};

    /// Two tensors of bytes over a file that holds `bytes`: (offset in the file, length, CRC) each.
    fn same(bytes: &[u8], parts: [(u64, u64, Option<u32>); 2]) -> bool {
        same_as(bytes, parts, [Encoding::Stored; 2])
    }

    fn same_as(
        bytes: &[u8],
        parts: [(u64, u64, Option<u32>); 2],
        encodings: [Encoding; 2],
    ) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        let files = [FileSource::open(&path).unwrap()];
        let mut inventory = Inventory::default();
        for ((file_offset, size_bytes, crc32), encoding) in parts.into_iter().zip(encodings) {
            inventory.storages.push(StorageEntry {
                file: 0,
                key: String::new(),
                size_bytes,
                file_offset,
                encoding,
                byte_order: ByteOrder::Little,
                crc32,
                record_bytes: size_bytes,
            });
        }
        let tensor = |storage: usize, length| TensorEntry {
            name: "w".to_owned(),
            dtype: DType::UInt8,
            layout: Layout::contiguous(&[length]),
            storage,
        };
        let [a, b] = [tensor(0, parts[0].1), tensor(1, parts[1].1)];
        same_bytes(&files, &inventory, &a, &b).unwrap()
    }

    #[test]
    fn bytes_are_compared_where_there_is_no_crc() {
        assert!(same(b"abcdabcd", [(0, 4, None), (4, 4, Some(7))]));
        assert!(!same(b"abcdabce", [(0, 4, None), (4, 4, None)]));
        assert!(!same(b"abcdabcd", [(0, 4, None), (4, 3, None)]), "another shape");
        let long = vec![7; 3 << 18];
        assert!(same(
            &[&long[..], &long[..]].concat(),
            [(0, 3 << 18, None), (3 << 18, 3 << 18, None)]
        ));
    }

    #[test]
    fn crcs_are_taken_at_their_word() {
        assert!(same(b"abcdefgh", [(0, 4, Some(1)), (4, 4, Some(1))]));
        assert!(!same(b"abcdabcd", [(0, 4, Some(1)), (4, 4, Some(2))]));
    }

    #[test]
    fn deflated_bytes_are_compared_with_stored_ones() {
        // zlib.compressobj(9, zlib.DEFLATED, -15) of b"abcd"
        let deflated = b"KLJN\x01\x00";
        let parts = [(0, 4, None), (4, 4, None)];
        let encodings = [Encoding::Stored, Encoding::Deflated { compressed_bytes: 6 }];
        assert!(same_as(&[b"abcd", &deflated[..]].concat(), parts, encodings));
        assert!(!same_as(&[b"abce", &deflated[..]].concat(), parts, encodings));
    }
}

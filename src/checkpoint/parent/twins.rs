//! Compares tensors of one parent, by their CRC-32 or by reading both, and remembers which have
//! equal bytes.

use crate::checkpoint::parent::checkpoint::Checkpoint;
use crate::checkpoint::tensors::inventory::{Inventory, StorageEntry, TensorEntry};
use crate::error::Result;
use crate::format::{Encoding, ReadAt};

/// Bytes of each tensor that are read at a time.
const PIECE: usize = 1 << 20;

impl Inventory {
    /// Whether two tensors have equal bytes, as far as headers tell: because they are one view of
    /// one storage, or by the CRC-32s of records that hold nothing else. `None` where headers don't
    /// tell.
    pub fn equal_by_headers(&self, a: &TensorEntry, b: &TensorEntry) -> Option<bool> {
        if a.dtype != b.dtype || a.layout.shape != b.layout.shape {
            return Some(false);
        }
        if self.tied(a, b) {
            return Some(true);
        }
        let (ours, theirs) = (self.storages.get(a.storage)?, self.storages.get(b.storage)?);
        if ours.byte_order != theirs.byte_order || !is_whole(a, ours) || !is_whole(b, theirs) {
            return None;
        }
        Some(ours.crc32? == theirs.crc32?)
    }

    /// Whether two tensors are known to have equal bytes, from headers or by
    /// [`Checkpoint::compare`].
    pub fn equal(&self, a: usize, b: usize) -> bool {
        let (Some(first), Some(second)) = (self.tensors.get(a), self.tensors.get(b)) else {
            return false;
        };
        self.equal_by_headers(first, second)
            .unwrap_or_else(|| self.twins.contains(&(a, b)) || self.twins.contains(&(b, a)))
    }
}

impl Checkpoint {
    /// Compares the tensors at these positions of the inventory, pair by pair, up to the first
    /// bytes that differ, and adds equal ones to [`Inventory::twins`]. Skips pairs that headers
    /// tell of, views that are not contiguous, and deflated data.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::error::Kind::Io) where reading fails.
    pub fn compare(&mut self, pairs: &[(usize, usize)]) -> Result<()> {
        for (a, b) in pairs.iter().copied() {
            let twins = &self.inventory.twins;
            let known = twins.iter().any(|(x, y)| *y == a && twins.contains(&(*x, b)));
            if known || self.have_equal_bytes(a, b)? {
                self.inventory.twins.push((a, b));
            }
        }
        Ok(())
    }

    fn have_equal_bytes(&self, a: usize, b: usize) -> Result<bool> {
        let tensors = &self.inventory.tensors;
        let (Some(first), Some(second)) = (tensors.get(a), tensors.get(b)) else {
            return Ok(false);
        };
        if self.inventory.equal_by_headers(first, second).is_some() {
            return Ok(false);
        }
        let storage = |tensor: &TensorEntry| self.inventory.storages.get(tensor.storage);
        let same_order = storage(first).map(|storage| storage.byte_order)
            == storage(second).map(|storage| storage.byte_order);
        let (Some(ours), Some(theirs)) = (self.bytes_of(first), self.bytes_of(second)) else {
            return Ok(false);
        };
        if !same_order || ours.2 != theirs.2 {
            return Ok(false);
        }
        let (mut left, mut right) = (vec![0; PIECE], vec![0; PIECE]);
        let mut done = 0u64;
        while done < ours.2 {
            let length = usize::try_from(ours.2 - done).unwrap_or(PIECE).min(PIECE);
            for ((file, offset, _), buffer) in [(ours, &mut left), (theirs, &mut right)] {
                let Some(file) = self.files.get(file) else { return Ok(false) };
                buffer.truncate(length);
                file.read_exact_at(offset.saturating_add(done), buffer)
                    .map_err(|error| file.read_error("cannot read tensor data", error))?;
            }
            if left != right {
                return Ok(false);
            }
            done += length as u64;
        }
        Ok(true)
    }

    /// File, offset and length in bytes of a tensor that is stored and contiguous.
    fn bytes_of(&self, tensor: &TensorEntry) -> Option<(usize, u64, u64)> {
        let storage = self.inventory.storages.get(tensor.storage)?;
        if storage.encoding != Encoding::Stored || !tensor.layout.is_contiguous() {
            return None;
        }
        let item = tensor.dtype.size_bytes();
        let skip = tensor.layout.storage_offset.checked_mul(item)?;
        let length = tensor.layout.numel()?.checked_mul(item)?;
        Some((storage.file, storage.file_offset.checked_add(skip)?, length))
    }
}

/// Whether a record holds this tensor and nothing else.
fn is_whole(tensor: &TensorEntry, storage: &StorageEntry) -> bool {
    let bytes = tensor.layout.numel().and_then(|n| n.checked_mul(tensor.dtype.size_bytes()));
    tensor.layout.storage_offset == 0
        && tensor.layout.is_contiguous()
        && bytes == Some(storage.record_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::files::source::FileSource;
    use crate::format::ByteOrder;
    use crate::tensor::{DType, Layout};

    /// Tensors of four bytes at these offsets of one storage of `bytes` each, and their CRCs.
    fn checkpoint(tensors: &[(&[u8], u64, Option<u32>)]) -> (tempfile::TempDir, Checkpoint) {
        let dir = tempfile::tempdir().unwrap();
        let mut checkpoint = Checkpoint::empty(dir.path(), None);
        for (key, (bytes, offset, crc32)) in tensors.iter().enumerate() {
            let path = dir.path().join(key.to_string());
            std::fs::write(&path, bytes).unwrap();
            checkpoint.files.push(FileSource::open(&path).unwrap());
            checkpoint.inventory.storages.push(StorageEntry {
                file: key,
                key: key.to_string(),
                size_bytes: bytes.len() as u64,
                file_offset: 0,
                encoding: Encoding::Stored,
                byte_order: ByteOrder::Little,
                crc32: *crc32,
                record_bytes: bytes.len() as u64,
            });
            checkpoint.inventory.tensors.push(TensorEntry {
                name: key.to_string(),
                dtype: DType::UInt8,
                layout: Layout { storage_offset: *offset, ..Layout::contiguous(&[4]) },
                storage: key,
            });
        }
        (dir, checkpoint)
    }

    #[test]
    fn headers_tell_where_records_hold_one_tensor_and_have_a_crc() {
        let (_dir, checkpoint) = checkpoint(&[
            (b"abcd", 0, Some(7)),
            (b"abcd", 0, Some(7)),
            (b"abcx", 0, Some(8)),
            (b"abcd", 0, None),
            (b"abcde", 0, Some(7)),
        ]);
        let tensors = &checkpoint.inventory.tensors;
        let told: Vec<Option<bool>> = tensors
            .iter()
            .map(|other| checkpoint.inventory.equal_by_headers(&tensors[0], other))
            .collect();
        assert_eq!(told, [Some(true), Some(true), Some(false), None, None]);
    }

    #[test]
    fn where_headers_do_not_tell_the_bytes_are_read() {
        let (_dir, mut checkpoint) = checkpoint(&[
            (b"abcd", 0, None),
            (b"xabcd", 1, None),
            (b"abcx", 0, None),
            (b"abcd", 0, None),
        ]);
        checkpoint.compare(&[(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]).unwrap();
        assert_eq!(checkpoint.inventory.twins, [(0, 1), (0, 3), (1, 3)]);
        assert!(checkpoint.inventory.equal(3, 0) && !checkpoint.inventory.equal(0, 2));
    }

    #[test]
    fn a_difference_behind_the_first_piece_is_found_and_a_file_cut_short_is_an_error() {
        let mut long = vec![1; PIECE + 4];
        let (dir, mut checkpoint) = checkpoint(&[(&long, 0, None), (&long, 0, None)]);
        for tensor in &mut checkpoint.inventory.tensors {
            tensor.layout = Layout::contiguous(&[PIECE as u64 + 4]);
        }
        checkpoint.compare(&[(0, 1)]).unwrap();
        assert_eq!(checkpoint.inventory.twins, [(0, 1)]);
        checkpoint.inventory.twins.clear();
        long[PIECE + 3] = 2;
        std::fs::write(dir.path().join("1"), &long).unwrap();
        checkpoint.files[1] = FileSource::open(&dir.path().join("1")).unwrap();
        checkpoint.compare(&[(0, 1)]).unwrap();
        assert_eq!(checkpoint.inventory.twins, []);
        std::fs::write(dir.path().join("1"), b"short").unwrap();
        assert!(checkpoint.compare(&[(0, 1)]).is_err());
    }
}

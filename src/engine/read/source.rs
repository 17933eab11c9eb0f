//! `Source`: reads a parent's tensor by position, as contiguous little-endian elements, and checks
//! its CRC.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tch::Kind as TorchKind;

use crate::checkpoint::{Checkpoint, FileSource, StorageEntry, TensorEntry};
use crate::engine::read::added_rows::Filler;
use crate::engine::read::mapped_rows::{MappedRows, MappedRun};
use crate::engine::torch::ops::computed_kind;
use crate::error::{Error, Kind, Result};
use crate::format::{
    ByteOrder, Encoding, FormatError, ReadAt, Rule, inflate_exact, inflate_pieces,
};
use crate::tensor::{Layout, RunningCrc, crc32};

/// Bytes read at once where a storage is read whole.
const CHUNK: usize = 1 << 20;

/// A parent's tensor, ready to be read.
pub(crate) struct Source<'a> {
    /// The tensor in its inventory.
    pub(crate) tensor: &'a TensorEntry,
    /// Elements that the file has; the child may have more rows.
    pub(crate) numel: u64,
    /// Where its rows are in the child; nothing where each is in its place.
    pub(crate) rows: Option<MappedRows>,
    /// Values of the rows that the file lacks.
    pub(crate) filler: Option<Filler>,
    storage: &'a StorageEntry,
    file: &'a FileSource,
    /// Position of the first element in the file, where elements can be read as they lie.
    direct: Option<u64>,
    /// All elements, once loaded, where `direct` is `None`.
    whole: Mutex<Option<Arc<Vec<u8>>>>,
    /// CRC-32 of the storage, once it was loaded whole.
    loaded_crc: OnceLock<u32>,
}

impl<'a> Source<'a> {
    /// The tensor at `position` of a checkpoint's inventory.
    pub(crate) fn new(checkpoint: &'a Checkpoint, position: usize) -> Result<Source<'a>> {
        let lost = || Error::new(Kind::Internal, "a tensor that was planned is not in its parent");
        let tensor = checkpoint.inventory.tensors.get(position).ok_or_else(lost)?;
        let storage = checkpoint.inventory.storages.get(tensor.storage).ok_or_else(lost)?;
        let file = checkpoint.files.get(storage.file).ok_or_else(lost)?;
        let numel = tensor.layout.numel().ok_or_else(lost)?;
        let plain = tensor.layout.is_contiguous()
            && storage.encoding == Encoding::Stored
            && (storage.byte_order == ByteOrder::Little || tensor.dtype.swap_bytes() == 1);
        let direct = plain
            .then(|| {
                let skip = tensor.layout.storage_offset.checked_mul(tensor.dtype.size_bytes())?;
                // An empty tensor may claim any offset; nothing is read from it.
                if numel == 0 {
                    Some(storage.file_offset)
                } else {
                    storage.file_offset.checked_add(skip)
                }
            })
            .flatten();
        if plain && direct.is_none() {
            return Err(lost());
        }
        let (whole, loaded_crc) = (Mutex::new(None), OnceLock::new());
        Ok(Source {
            tensor,
            numel,
            rows: None,
            filler: None,
            storage,
            file,
            direct,
            whole,
            loaded_crc,
        })
    }

    /// The file that the tensor lies in.
    pub(crate) fn path(&self) -> &std::path::Path {
        self.file.path()
    }

    /// Bytes per element.
    pub(crate) fn item_bytes(&self) -> usize {
        // At most 16.
        usize::try_from(self.tensor.dtype.size_bytes()).unwrap_or(usize::MAX)
    }

    /// torch's kind of the elements.
    pub(crate) fn kind(&self) -> Result<TorchKind> {
        computed_kind(self.tensor.dtype)
    }

    /// Whether reading all elements in order reads exactly the bytes that the file's CRC covers.
    pub(crate) fn covers_storage(&self) -> bool {
        self.direct == Some(self.storage.file_offset)
            && self.rows.as_ref().is_none_or(MappedRows::is_in_order)
            && self.numel.checked_mul(self.tensor.dtype.size_bytes())
                == Some(self.storage.record_bytes)
    }

    /// Whether the tensor must be in memory whole to be read.
    pub(crate) fn needs_whole(&self) -> bool {
        self.direct.is_none()
    }

    /// The `numel` elements of the child's tensor from `start` on, as runs of elements of the file and of
    /// those that it lacks.
    pub(crate) fn runs(&self, start: u64, numel: usize) -> Result<Vec<MappedRun>> {
        let runs = match &self.rows {
            Some(rows) => rows.runs(start, numel).collect(),
            None if start.saturating_add(numel as u64) <= self.numel => {
                vec![MappedRun { range: 0..numel, from: Some(start), block: 0, missing: 0 }]
            }
            None => Vec::new(),
        };
        let covered = runs.last().map_or(0, |run| run.range.end);
        if covered != numel {
            let short = Error::new(Kind::Internal, "a tensor is shorter than planned");
            return Err(short.tensor(&self.tensor.name));
        }
        Ok(runs)
    }

    /// Fills `buffer` with elements from `start` on; all of them must be in the file.
    pub(crate) fn read(&self, start: u64, buffer: &mut [u8]) -> Result<()> {
        let skip = start.saturating_mul(self.tensor.dtype.size_bytes());
        let Some(direct) = self.direct else {
            let whole = self.load_whole()?;
            return whole.read_exact_at(skip, buffer).map_err(|error| self.read_error(error));
        };
        self.file
            .read_exact_at(direct.saturating_add(skip), buffer)
            .map_err(|error| self.read_error(error))
    }

    fn read_error(&self, error: std::io::Error) -> Error {
        self.file.read_error("cannot read tensor data", error).tensor(&self.tensor.name)
    }

    /// Whether the file is still what it was when it was opened.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        self.file.check_unchanged()
    }

    /// Compares the CRC of all elements with the file's.
    pub(crate) fn check_crc(&self, found: u32) -> Result<()> {
        match self.storage.crc32 {
            Some(expected) if self.covers_storage() && expected != found => {
                Err(checksum_error(self.file, self.storage, expected, found)
                    .tensor(&self.tensor.name))
            }
            _ => Ok(()),
        }
    }

    /// Whether merging the tensor reads every byte of its storage, at once or in order.
    pub(crate) fn reads_storage(&self) -> bool {
        self.numel > 0 && (self.needs_whole() || self.covers_storage())
    }

    /// CRC-32 of the storage where its file keeps none, `read` being that of all elements; `None`
    /// where the tensor shows only a part of it.
    pub(crate) fn content(&self, read: u32) -> Option<u32> {
        if !is_bare(self.storage) {
            return None;
        }
        if self.covers_storage() { Some(read) } else { self.loaded_crc.get().copied() }
    }

    /// Drops what was loaded whole.
    pub(crate) fn release(&self) {
        *self.whole.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn load_whole(&self) -> Result<Arc<Vec<u8>>> {
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = whole.as_ref() {
            return Ok(Arc::clone(bytes));
        }
        let mut bytes = self.load_storage()?;
        if self.storage.byte_order == ByteOrder::Big {
            swap(&mut bytes, self.tensor.dtype.swap_bytes());
        }
        let bytes = gather(&bytes, &self.tensor.layout, self.item_bytes()).ok_or_else(|| {
            Error::new(Kind::Internal, "a view leaves its storage").tensor(&self.tensor.name)
        })?;
        let bytes = Arc::new(bytes);
        *whole = Some(Arc::clone(&bytes));
        Ok(bytes)
    }

    fn load_storage(&self) -> Result<Vec<u8>> {
        let storage = self.storage;
        let bytes = match storage.encoding {
            Encoding::Deflated { compressed_bytes } => inflate_exact(
                self.file,
                storage.file_offset,
                compressed_bytes,
                storage.record_bytes,
            )
            .map_err(|error| {
                Error::from_format(self.file.path(), error.tensor(&self.tensor.name))
            })?,
            Encoding::Stored => {
                let length = usize::try_from(storage.record_bytes).map_err(|_| {
                    Error::new(Kind::Resource, "storage does not fit the address space")
                })?;
                let mut bytes = vec![0; length];
                self.file
                    .read_exact_at(storage.file_offset, &mut bytes)
                    .map_err(|error| self.read_error(error))?;
                bytes
            }
        };
        let found = crc32(&bytes);
        let _ = self.loaded_crc.set(found);
        match storage.crc32 {
            Some(expected) if expected != found => {
                Err(checksum_error(self.file, storage, expected, found).tensor(&self.tensor.name))
            }
            _ => Ok(bytes),
        }
    }
}

/// Whether a storage has bytes and its file keeps no CRC of them.
pub(crate) fn is_bare(storage: &StorageEntry) -> bool {
    storage.crc32.is_none() && storage.record_bytes > 0
}

/// Reads a whole storage and checks its CRC, for storages that no tensor covers. Returns the CRC.
/// `go_on` is asked between chunks.
pub(crate) fn read_storage(
    checkpoint: &Checkpoint,
    position: usize,
    go_on: &dyn Fn() -> Result<()>,
) -> Result<u32> {
    let lost = || Error::new(Kind::Internal, "a storage is not in its parent");
    let storage = checkpoint.inventory.storages.get(position).ok_or_else(lost)?;
    let file = checkpoint.files.get(storage.file).ok_or_else(lost)?;
    let mut digest = RunningCrc::new();
    match storage.encoding {
        Encoding::Stored => {
            let mut buffer = vec![0; CHUNK];
            let mut done = 0u64;
            while done < storage.record_bytes {
                go_on()?;
                let left = usize::try_from(storage.record_bytes - done).unwrap_or(CHUNK);
                let part = &mut buffer[..left.min(CHUNK)];
                file.read_exact_at(storage.file_offset.saturating_add(done), part)
                    .map_err(|error| file.read_error("cannot read storage", error))?;
                digest.update(part);
                done += part.len() as u64;
            }
        }
        Encoding::Deflated { compressed_bytes } => {
            let (offset, size) = (storage.file_offset, storage.record_bytes);
            let mut stopped = None;
            let mut take = |piece: &[u8]| {
                digest.update(piece);
                stopped = go_on().err();
                if stopped.is_none() { Ok(()) } else { Err(std::io::Error::other("stopped")) }
            };
            let read = inflate_pieces(file, offset, compressed_bytes, size, &mut take);
            stopped.map_or(Ok(()), Err)?;
            read.map_err(|error| Error::from_format(file.path(), error))?;
        }
    }
    let found = digest.crc().crc32;
    match storage.crc32 {
        Some(expected) if expected != found => Err(checksum_error(file, storage, expected, found)),
        _ => Ok(found),
    }
}

fn checksum_error(file: &FileSource, storage: &StorageEntry, expected: u32, found: u32) -> Error {
    let refusal = FormatError::new(
        Rule::Checksum,
        format!("storage {} is damaged", storage.key),
        format!("CRC-32 {expected:08x}"),
        format!("{found:08x}"),
    )
    .at(storage.file_offset)
    .hint("download or copy that file again");
    Error::from_format(file.path(), refusal)
}

/// Swaps every group of `width` bytes.
pub(crate) fn swap(bytes: &mut [u8], width: u64) {
    let width = usize::try_from(width).unwrap_or(1).max(1);
    if width == 1 {
        return;
    }
    for group in bytes.chunks_exact_mut(width) {
        group.reverse();
    }
}

/// The elements of a view in row-major order; `None` where the view leaves the storage.
fn gather(storage: &[u8], layout: &Layout, item: usize) -> Option<Vec<u8>> {
    let numel = usize::try_from(layout.numel()?).ok()?;
    let mut out = Vec::with_capacity(numel.checked_mul(item)?.min(storage.len()));
    if numel == 0 {
        return Some(out);
    }
    let mut index = vec![0u64; layout.shape.len()];
    let mut position = layout.storage_offset;
    for _ in 0..numel {
        let start = usize::try_from(position).ok()?.checked_mul(item)?;
        out.extend_from_slice(storage.get(start..start.checked_add(item)?)?);
        for dimension in (0..index.len()).rev() {
            index[dimension] += 1;
            position = position.checked_add(layout.stride[dimension])?;
            if index[dimension] < layout.shape[dimension] {
                break;
            }
            position -= layout.stride[dimension] * layout.shape[dimension];
            index[dimension] = 0;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transposed_view_is_gathered_in_row_major_order() {
        let layout = Layout { shape: vec![3, 2], stride: vec![1, 3], storage_offset: 1 };
        assert_eq!(gather(&[9, 0, 1, 2, 3, 4, 5], &layout, 1).unwrap(), [0, 3, 1, 4, 2, 5]);
        assert!(gather(&[9, 0, 1, 2, 3, 4], &layout, 1).is_none());
    }

    #[test]
    fn big_endian_groups_are_reversed() {
        let mut bytes = [1, 2, 3, 4];
        swap(&mut bytes, 2);
        assert_eq!(bytes, [2, 1, 4, 3]);
    }
}

//! Keeps a child's latest weight files open, and writes to them past the page cache where the file
//! system can.
//!
//! A child is flushed to disk before it appears, so caching it gains nothing: pages must be
//! allocated, filled and written back, and they evict others. Direct I/O takes whole blocks of the
//! file system from memory with the same alignment; the rest at both ends of a write goes through
//! the page cache. The two never share a block, so neither overwrites the other's data.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Error as IoError, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::Advice;

use crate::error::Result;

/// Alignment that direct I/O needs of addresses, file offsets and lengths: the disk's block size,
/// which is at most 4096 bytes.
pub const DIRECT_ALIGNMENT: usize = 4096;

/// Shorter writes go through the page cache: they are not worth a request to the disk of their own.
const LEAST_DIRECT: usize = 64 << 10;

/// An open weight file.
#[derive(Debug)]
pub(super) struct WeightFile {
    /// For reads, and for writes through the page cache.
    pub(super) cached: File,
    /// For writes past the page cache; `None` where the file system can't.
    direct: Option<File>,
    /// Whether the file system has refused a direct write after all.
    refused: AtomicBool,
}

impl WeightFile {
    /// `direct` is the same file, opened with `O_DIRECT`.
    pub(super) fn new(cached: File, direct: Option<File>) -> WeightFile {
        WeightFile { cached, direct, refused: AtomicBool::new(false) }
    }

    /// Whether whole blocks go past the page cache.
    pub(super) fn is_direct(&self) -> bool {
        self.direct.is_some() && !self.refused.load(Ordering::Relaxed)
    }

    /// Asks the kernel to drop the file from the page cache: pages that were read ahead reach into
    /// blocks that will be written past it.
    pub(super) fn forget(&self) {
        if let Err(error) = rustix::fs::fadvise(&self.cached, 0, None, Advice::DontNeed) {
            log::debug!("the page cache keeps what was read: {error}");
        }
    }

    /// Writes all bytes at `offset`, whole blocks directly if memory and file are aligned alike.
    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        let direct = self.direct.as_ref().filter(|_| self.is_direct());
        let Some((file, (head, middle, tail))) = direct.zip(split(bytes, offset)) else {
            return self.cached.write_all_at(bytes, offset);
        };
        let middle_at = offset.saturating_add(head.len() as u64);
        self.cached.write_all_at(head, offset)?;
        self.write_middle(file, middle, middle_at)?;
        self.cached.write_all_at(tail, middle_at.saturating_add(middle.len() as u64))
    }

    fn write_middle(&self, file: &File, mut bytes: &[u8], mut offset: u64) -> std::io::Result<()> {
        while !bytes.is_empty() {
            match file.write_at(bytes, offset) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    bytes = bytes.get(count..).unwrap_or_default();
                    offset = offset.saturating_add(count as u64);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Blocks are larger than assumed, or a short write ended inside one.
                Err(error) if is_refusal(&error) => {
                    self.refused.store(true, Ordering::Relaxed);
                    return self.cached.write_all_at(bytes, offset);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is_refusal(error: &IoError) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported)
}

/// Splits bytes for `offset` of a file into head, middle and tail, where the middle is whole
/// blocks; `None` where they are too few, or aligned differently in memory and in the file.
fn split(bytes: &[u8], offset: u64) -> Option<(&[u8], &[u8], &[u8])> {
    let alignment = DIRECT_ALIGNMENT as u64;
    let in_block = usize::try_from(offset % alignment).ok()?;
    if bytes.as_ptr().addr() % DIRECT_ALIGNMENT != in_block {
        return None;
    }
    let head = (DIRECT_ALIGNMENT - in_block) % DIRECT_ALIGNMENT;
    let (head, rest) = bytes.split_at_checked(head)?;
    let whole = rest.len() - rest.len() % DIRECT_ALIGNMENT;
    let (middle, tail) = rest.split_at_checked(whole)?;
    (middle.len() >= LEAST_DIRECT).then_some((head, middle, tail))
}

/// The weight files that are kept open, the latest ones.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    files: Mutex<VecDeque<(usize, Arc<WeightFile>)>>,
    most: usize,
}

impl OpenFiles {
    /// Keeps at most `most` files open, but at least one.
    pub(super) fn new(most: usize) -> OpenFiles {
        OpenFiles { files: Mutex::default(), most: most.max(1) }
    }

    /// The file of a shard, opened with `open` unless it is already.
    ///
    /// # Errors
    /// Those of `open`.
    pub(super) fn get(
        &self,
        shard: usize,
        open: impl FnOnce() -> Result<WeightFile>,
    ) -> Result<Arc<WeightFile>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = files.iter().find(|entry| entry.0 == shard) {
            return Ok(Arc::clone(&entry.1));
        }
        let file = Arc::new(open()?);
        if files.len() >= self.most {
            files.pop_front();
        }
        files.push_back((shard, Arc::clone(&file)));
        Ok(file)
    }

    /// All open files, with their shards.
    pub(super) fn all(&self) -> Vec<(usize, Arc<WeightFile>)> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;

    use rustix::fs::OFlags;

    use super::*;

    fn open(path: &Path) -> WeightFile {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let cached = options.open(path).unwrap();
        let direct = options.custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path).ok();
        WeightFile::new(cached, direct)
    }

    /// Bytes that lie in memory as at `offset` of a file, and where they begin.
    fn aligned(length: usize, offset: usize) -> (Vec<u8>, usize) {
        let bytes: Vec<u8> =
            (0..length + 2 * DIRECT_ALIGNMENT).map(|at| (at % 251) as u8).collect();
        let to_block = bytes.as_ptr().align_offset(DIRECT_ALIGNMENT);
        (bytes, to_block + offset % DIRECT_ALIGNMENT)
    }

    #[test]
    fn writes_side_by_side_leave_every_byte() {
        // Not in /tmp, which may be a file system without direct I/O.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR").to_owned() + "/target").unwrap();
        let path = dir.path().join("file");
        let length = 1 << 20;
        std::fs::write(&path, vec![0; length]).unwrap();
        let file = open(&path);
        let mut expected = vec![0; length];
        let cuts = [0, 64, 70_000, 70_001, 73_728, 400_000, 800_000, 804_096, length];
        // Every second part first, so that each meets neighbours that are there and that are not.
        let parts: Vec<_> = cuts.windows(2).map(|cut| (cut[0], cut[1])).collect();
        for (from, to) in parts.iter().step_by(2).chain(parts.iter().skip(1).step_by(2)).copied() {
            let (bytes, start) = aligned(to - from, from);
            let bytes = &bytes[start..start + to - from];
            file.write(bytes, from as u64).unwrap();
            expected[from..to].copy_from_slice(bytes);
        }
        assert!(!file.refused.load(Ordering::Relaxed));
        assert!(std::fs::read(&path).unwrap() == expected);
    }

    #[test]
    fn only_whole_blocks_that_lie_alike_go_directly() {
        let (bytes, start) = aligned(300_000, 100);
        let bytes = &bytes[start..start + 300_000];
        let (head, middle, tail) = split(bytes, 4096 * 7 + 100).unwrap();
        assert_eq!((head.len(), middle.len(), tail.len()), (3996, 294_912, 1092));
        assert!(split(bytes, 101).is_none());
        assert!(split(&bytes[..LEAST_DIRECT], 100).is_none());
        assert!(split(&[], 0).is_none());
    }

    #[test]
    fn a_file_that_refuses_is_written_through_the_page_cache() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"").unwrap();
        // A descriptor for reading refuses with another error; blocks that are too small, with
        // EINVAL.
        let file = open(&path);
        let (bytes, start) = aligned(200_000, 0);
        let bytes = &bytes[start..start + 200_000];
        let unaligned = &bytes[1..];
        file.write_middle(file.direct.as_ref().unwrap_or(&file.cached), unaligned, 1).unwrap();
        assert!(std::fs::read(&path).unwrap()[1..] == *unaligned);
    }
}

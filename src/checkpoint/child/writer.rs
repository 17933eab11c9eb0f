//! Writes a child's weight files in place, in any order and from any thread, and notes finished
//! storages in its journal.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use serde_json::Value;

use crate::checkpoint::child::layout::{ChildLayout, Place, no_place};
use crate::checkpoint::child::weight_files::{OpenFiles, WeightFile};
use crate::checkpoint::output::journal::{
    Interrupted, JOURNAL_FILE, Journal, JournalEntry, difference, read_journal,
};
use crate::checkpoint::output::staging::Staging;
use crate::checkpoint::output::work_dir::write_failed;
use crate::error::{Error, Kind, Result};
use crate::format::{Piece, StorageSum};
use crate::tensor::RunningCrc;

/// Weight files kept open at once, over all children of a merge; each may be open twice.
const OPEN_FILES: usize = 12;

/// How a child is begun.
#[derive(Clone, Copy, Debug)]
pub struct Opened<'a> {
    /// Whether to flush every file before the child appears.
    pub fsync: bool,
    /// What is merged and how: the first line of the journal.
    pub header: &'a Value,
    /// Whether to continue what an interrupted run left.
    pub resume: bool,
    /// Number of children that are written at once, including this one.
    pub n_children: usize,
}

/// A child being written.
#[derive(Debug)]
pub struct ChildWriter {
    /// `None` where the child is already complete, and nothing is written.
    staging: Option<Staging>,
    layout: ChildLayout,
    header: Value,
    found: Vec<JournalEntry>,
    journal: OnceLock<Journal>,
    open: OpenFiles,
}

impl ChildWriter {
    /// Makes the work directory and all weight files at their full length, with everything that
    /// does not depend on the data. When resuming, the data that the interrupted run left is kept,
    /// to be checked with [`ChildWriter::holds`].
    ///
    /// # Errors
    /// As [`Staging::create`]; [`Kind::Io`] where a file can't be made; [`Kind::Data`] where
    /// another merge was interrupted, and [`Kind::TryAgain`] where a parent changed since: both
    /// keep what was left.
    pub fn create(output: &Path, layout: ChildLayout, how: Opened<'_>) -> Result<ChildWriter> {
        let staging = Staging::open(output, how.fsync)?;
        let left = if how.resume { read_journal(staging.dir())? } else { None };
        let found = match left {
            Some(Interrupted { header, entries }) => {
                if let Some(difference) = difference(&header, how.header) {
                    return Err(another_merge(&staging.keep(), difference));
                }
                let ours = |name: &str| layout.shards.iter().any(|shard| shard.file_name == name);
                staging.clear(&|name| name == JOURNAL_FILE || ours(name))?;
                entries
            }
            None => {
                staging.clear(&|_| false)?;
                if how.resume {
                    log::warn!(
                        "nothing to resume for {}: merging from the start",
                        output.display()
                    );
                }
                Vec::new()
            }
        };
        let writer = ChildWriter {
            staging: None,
            layout,
            header: how.header.clone(),
            found,
            journal: OnceLock::new(),
            open: OpenFiles::new(OPEN_FILES / how.n_children.max(1)),
        };
        for shard in &writer.layout.shards {
            let file = staging.reopen_file(&shard.file_name)?;
            let path = staging.dir().join(&shard.file_name);
            allocate(&file, shard.layout.total_bytes())
                .map_err(|error| write_error(&path, error))?;
            write_pieces(&file, &path, &shard.layout.head_pieces())?;
        }
        Ok(ChildWriter { staging: Some(staging), ..writer })
    }

    /// A writer for a child that is already complete: what is written to it is dropped.
    pub fn complete(layout: ChildLayout) -> ChildWriter {
        ChildWriter {
            staging: None,
            layout,
            header: Value::Null,
            found: Vec::new(),
            journal: OnceLock::new(),
            open: OpenFiles::default(),
        }
    }

    /// The work directory; `None` for a complete child.
    pub fn staging(&self) -> Option<&Staging> {
        self.staging.as_ref()
    }

    /// The storages that an interrupted run finished, by its journal.
    pub fn found(&self) -> &[JournalEntry] {
        &self.found
    }

    /// Whether a storage in the child's files has the CRC of its journal entry. Reads all of it,
    /// through `buffer`.
    ///
    /// # Errors
    /// [`Kind::Io`] where reading fails.
    pub fn holds(&self, entry: &JournalEntry, buffer: &mut [u8]) -> Result<bool> {
        let Some(place) = self.layout.places.get(entry.storage).copied() else { return Ok(false) };
        if (place.offset, place.size_bytes) != (entry.offset, entry.size_bytes) {
            return Ok(false);
        }
        let Some(staging) = &self.staging else { return Ok(false) };
        let file = self.file(staging, place.shard)?;
        let mut digest = RunningCrc::new();
        let mut done = 0u64;
        while done < place.size_bytes {
            let length = usize::try_from(place.size_bytes - done).unwrap_or(usize::MAX);
            let length = length.min(buffer.len()).max(1);
            let Some(part) = buffer.get_mut(..length) else { return Ok(false) };
            file.cached.read_exact_at(part, place.offset.saturating_add(done)).map_err(
                |error| {
                    let path = staging.dir().join(&self.layout.shards[place.shard].file_name);
                    Error::from_io(Kind::Io, "cannot read what was left", &path, error)
                },
            )?;
            digest.update(part);
            done += length as u64;
        }
        Ok(digest.crc().crc32 == entry.crc32)
    }

    /// Starts the journal, with the storages that are kept from an interrupted run.
    ///
    /// # Errors
    /// [`Kind::Io`] with the path.
    pub fn start_journal(&self, kept: &[JournalEntry]) -> Result<()> {
        let Some(staging) = &self.staging else { return Ok(()) };
        if !self.found.is_empty() {
            for shard in 0..self.layout.shards.len() {
                self.file(staging, shard)?.forget();
            }
        }
        // A merge starts its journal once, so this can't fail.
        let _ = self.journal.set(Journal::start(staging.dir(), &self.header, kept)?);
        Ok(())
    }

    /// Appends a finished storage to the journal; `found` is what the engine adds.
    ///
    /// # Errors
    /// [`Kind::Io`] with the path.
    pub fn record(&self, storage: usize, sum: StorageSum, found: &Value) -> Result<()> {
        let (Some(journal), Some(place)) = (self.journal.get(), self.layout.places.get(storage))
        else {
            return Ok(());
        };
        journal.append(&JournalEntry {
            storage,
            offset: place.offset,
            size_bytes: place.size_bytes,
            crc32: sum.crc32,
            first_bytes: sum.first_bytes,
            found: found.clone(),
        })
    }

    fn place(&self, staging: &Staging, storage: usize) -> Result<Place> {
        self.layout.places.get(storage).copied().ok_or_else(|| no_place(staging.output()))
    }

    /// Offset of a storage in its file, in bytes.
    ///
    /// # Errors
    /// [`Kind::Internal`] where there is no such storage.
    pub fn file_offset(&self, storage: usize) -> Result<u64> {
        match &self.staging {
            Some(staging) => Ok(self.place(staging, storage)?.offset),
            None => Ok(0),
        }
    }

    /// Whether all files are flushed to disk before the child appears.
    pub fn is_flushed(&self) -> bool {
        self.staging.as_ref().is_some_and(Staging::fsync)
    }

    /// Writes bytes of a storage at `offset` from its start: past the page cache where their
    /// address and their offset in the file are equal modulo
    /// [`DIRECT_ALIGNMENT`](crate::checkpoint::DIRECT_ALIGNMENT).
    ///
    /// # Errors
    /// [`Kind::Io`] with the file's path.
    pub fn write(&self, storage: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        self.write_by(storage, (offset, bytes), WeightFile::write)
    }

    /// Like [`ChildWriter::write`], but through the page cache.
    ///
    /// # Errors
    /// [`Kind::Io`] with the file's path.
    pub fn write_cached(&self, storage: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let write = |file: &WeightFile, bytes: &[u8], at| file.cached.write_all_at(bytes, at);
        self.write_by(storage, (offset, bytes), write)
    }

    fn write_by(
        &self,
        storage: usize,
        (offset, bytes): (u64, &[u8]),
        write: impl FnOnce(&WeightFile, &[u8], u64) -> std::io::Result<()>,
    ) -> Result<()> {
        let Some(staging) = &self.staging else { return Ok(()) };
        let place = self.place(staging, storage)?;
        let end = offset.saturating_add(bytes.len() as u64);
        if end > place.size_bytes {
            return Err(Error::new(Kind::Internal, "a write leaves its storage")
                .expected(format!("at most {} bytes", place.size_bytes), format!("{end}")));
        }
        let file = self.file(staging, place.shard)?;
        write(&file, bytes, place.offset.saturating_add(offset)).map_err(|error| {
            write_error(&staging.dir().join(&self.layout.shards[place.shard].file_name), error)
        })
    }

    /// Flushes what was written to the open weight files so far, where files are flushed at all.
    ///
    /// # Errors
    /// [`Kind::Io`] with the file's path: the kernel may have dropped what it could not write.
    pub fn flush_written(&self) -> Result<()> {
        let Some(staging) = self.staging.as_ref().filter(|staging| staging.fsync()) else {
            return Ok(());
        };
        let cached = self.open.all().into_iter().filter(|(_, file)| !file.is_direct());
        cached.into_iter().try_for_each(|(shard, file)| {
            staging.flush(&file.cached, &self.layout.shards[shard].file_name)
        })
    }

    /// Writes what depends on the data's CRCs, `sums` by the child's storage index, and flushes
    /// every weight file. Then writes the index JSON, where there are several shards.
    ///
    /// # Errors
    /// [`Kind::Io`] with the file's path.
    pub fn finish(
        &self,
        sums: &[StorageSum],
        total_size: u64,
        total_parameters: u64,
    ) -> Result<()> {
        let Some(staging) = &self.staging else { return Ok(()) };
        for (position, shard) in self.layout.shards.iter().enumerate() {
            let own: Vec<StorageSum> =
                shard.storages.iter().filter_map(|storage| sums.get(*storage).copied()).collect();
            let tail = shard
                .layout
                .tail_pieces(&own)
                .map_err(|error| Error::new(Kind::Internal, error.to_string()).caused_by(error))?;
            let file = self.file(staging, position)?;
            write_pieces(&file.cached, &staging.dir().join(&shard.file_name), &tail)?;
            staging.flush(&file.cached, &shard.file_name)?;
        }
        if let Some((name, json)) = self.layout.index(total_size, total_parameters) {
            staging.write_file(&name, json.as_bytes())?;
        }
        Ok(())
    }

    /// Makes the child appear at its output. See [`Staging::commit`].
    ///
    /// # Errors
    /// As [`Staging::commit`].
    pub fn commit(self, overwrite: bool) -> Result<()> {
        self.staging.map_or(Ok(()), |staging| staging.commit(overwrite))
    }

    /// Keeps what is written so far for a later run, and returns its path.
    pub fn keep(self) -> Option<PathBuf> {
        self.staging.map(Staging::keep)
    }

    fn file(&self, staging: &Staging, shard: usize) -> Result<Arc<WeightFile>> {
        self.open.get(shard, || {
            let name = &self.layout.shards[shard].file_name;
            Ok(WeightFile::new(staging.existing_file(name)?, staging.direct_file(name)))
        })
    }
}

/// Sets a file's length, and allocates its blocks where the file system can: then no later write
/// finds the disk full, and none has to allocate.
///
/// On tmpfs that is to zero the memory, 0.2 s for a GB before any worker starts; the first write of each
/// page allocates as well, in all workers at once.
fn allocate(file: &File, length: u64) -> std::io::Result<()> {
    file.set_len(length)?;
    if is_in_memory(file) {
        return Ok(());
    }
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length) {
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(()),
            other => return other.map_err(std::io::Error::from),
        }
    }
}

/// Whether a file is on tmpfs.
fn is_in_memory(file: &File) -> bool {
    /// TMPFS_MAGIC of Linux's magic.h.
    const TMPFS: u64 = 0x0102_1994;
    rustix::fs::fstatfs(file).is_ok_and(|found| u64::try_from(found.f_type) == Ok(TMPFS))
}

fn write_pieces(file: &File, path: &Path, pieces: &[Piece]) -> Result<()> {
    for piece in pieces {
        file.write_all_at(&piece.bytes, piece.offset).map_err(|error| write_error(path, error))?;
    }
    Ok(())
}

fn write_error(path: &Path, error: std::io::Error) -> Error {
    write_failed("cannot write the child", path, error)
}

/// The error for a work directory of another merge, with the difference: what, there, here.
fn another_merge(work: &Path, (what, there, here): (String, String, String)) -> Error {
    let parent = what.starts_with("primary: files") || what.starts_with("secondary: files");
    let kind = if parent { Kind::TryAgain } else { Kind::Data };
    let text = if parent { "a parent changed since" } else { "another merge was interrupted here" };
    Error::new(kind, text)
        .file(work)
        .expected(format!("{what} {there}"), here)
        .with_hint("resume with the same parents and options, or merge anew without --resume")
        .left_on_disk(vec![work.to_path_buf()])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn no_room_is_taken_in_memory() {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        if !mounts.lines().any(|line| line.contains(" /dev/shm tmpfs ")) {
            return;
        }
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        allocate(&file, 1 << 20).unwrap();
        let found = file.metadata().unwrap();
        assert_eq!((found.len(), found.blocks()), (1 << 20, 0));
    }
}

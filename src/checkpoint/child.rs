//! The child's weight files in the making: written in place, in any order, by any thread.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::Value;

use crate::checkpoint::journal::{
    Found, JOURNAL_FILE, Journal, JournalEntry, difference, read_journal,
};
use crate::checkpoint::split::INDEX_FILE_NAME;
use crate::checkpoint::staging::{Staging, write_failed};
use crate::error::{Error, Kind, Result};
use crate::format::{EmitTensor, Piece, ShardLayout, StorageSum, index_text};

/// Weight files that stay open at once, over all children of a merge.
const OPEN_FILES: usize = 24;

/// One weight file to be written.
#[derive(Clone, Debug)]
pub struct ShardSpec {
    /// File name in the child's directory.
    pub file_name: String,
    /// Its tensors in order; storages by the child's index.
    pub tensors: Vec<EmitTensor>,
}

/// Offsets of all weight files of one child, known before its data.
#[derive(Debug)]
pub struct ChildLayout {
    shards: Vec<Shard>,
    /// Per storage of the child: its shard, and its place in it.
    places: Vec<Place>,
}

#[derive(Debug)]
struct Shard {
    file_name: String,
    layout: ShardLayout,
    /// The child's storages in this shard, by the shard's index.
    storages: Vec<usize>,
    /// (tensor name, file name) for the index.
    names: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    shard: usize,
    offset: u64,
    size_bytes: u64,
}

impl ChildLayout {
    /// Lays out the weight files of a child that will be found at `output`.
    ///
    /// # Errors
    /// [`Kind::Data`] where torch's format can't hold the tensors.
    pub fn new(output: &Path, specs: &[ShardSpec], storage_bytes: &[u64]) -> Result<ChildLayout> {
        let mut places = vec![None; storage_bytes.len()];
        let mut shards = Vec::with_capacity(specs.len());
        for (position, spec) in specs.iter().enumerate() {
            // The folder inside the zip follows from the path as the user gave it, as in torch.save.
            let final_path = output.join(&spec.file_name);
            let mut storages: Vec<usize> = Vec::new();
            let mut tensors = spec.tensors.clone();
            let mut local = std::collections::HashMap::new();
            for tensor in &mut tensors {
                let next = storages.len();
                let index = *local.entry(tensor.storage).or_insert_with(|| {
                    storages.push(tensor.storage);
                    next
                });
                tensor.storage = index;
            }
            let sizes: Vec<u64> = storages.iter().map(|storage| storage_bytes[*storage]).collect();
            let layout = ShardLayout::new(&final_path.to_string_lossy(), &tensors, &sizes)
                .map_err(|error| {
                    Error::new(Kind::Data, error.to_string()).file(&final_path).caused_by(error)
                })?;
            for (index, storage) in storages.iter().enumerate() {
                let offset = layout.storage_offset(index).ok_or_else(|| lost(&final_path))?;
                places[*storage] =
                    Some(Place { shard: position, offset, size_bytes: sizes[index] });
            }
            shards.push(Shard {
                file_name: spec.file_name.clone(),
                layout,
                storages,
                names: spec.tensors.iter().map(|tensor| tensor.name.clone()).collect(),
            });
        }
        let places = places
            .into_iter()
            .map(|place| place.ok_or_else(|| lost(output)))
            .collect::<Result<Vec<_>>>()?;
        Ok(ChildLayout { shards, places })
    }

    /// Names and sizes in bytes of the weight files, the index among them where there is one.
    pub fn files(&self, total_size: u64, total_parameters: u64) -> Vec<(String, u64)> {
        let shards = self.shards.iter();
        let mut files: Vec<(String, u64)> =
            shards.map(|shard| (shard.file_name.clone(), shard.layout.total_bytes())).collect();
        if let Some(json) = self.index_text(total_size, total_parameters) {
            files.push((INDEX_FILE_NAME.to_owned(), json.len() as u64));
        }
        files
    }

    /// The index JSON, where there are several shards.
    fn index_text(&self, total_size: u64, total_parameters: u64) -> Option<String> {
        let names = |shard: &'_ Shard| -> Vec<(String, String)> {
            let name = |name: &String| (name.clone(), shard.file_name.clone());
            shard.names.iter().map(name).collect()
        };
        let map: Vec<(String, String)> = self.shards.iter().flat_map(names).collect();
        let weight_map = map.iter().map(|(name, file)| (name.as_str(), file.as_str()));
        (self.shards.len() > 1).then(|| index_text(total_parameters, total_size, weight_map))
    }

    /// Bytes of all weight files.
    pub fn total_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.layout.total_bytes()).fold(0, u64::saturating_add)
    }
}

fn lost(path: &Path) -> Error {
    Error::new(Kind::Internal, "a storage has no place in the child").file(path)
}

/// How a child is begun.
#[derive(Clone, Copy, Debug)]
pub struct Opened<'a> {
    /// Flush every file before the child appears.
    pub fsync: bool,
    /// What is merged and how: the first line of the journal.
    pub header: &'a Value,
    /// Go on with what an interrupted run left.
    pub resume: bool,
    /// Children that are written at once, this one among them.
    pub n_children: usize,
}

/// A child being written.
#[derive(Debug)]
pub struct ChildWriter {
    /// `None` where the child is at its place already, and nothing more is written.
    staging: Option<Staging>,
    layout: ChildLayout,
    header: Value,
    found: Vec<JournalEntry>,
    journal: OnceLock<Journal>,
    open: Mutex<VecDeque<(usize, Arc<File>)>>,
    open_files: usize,
}

impl ChildWriter {
    /// Makes the work directory and all weight files, at their full length, with everything in them
    /// that does not depend on the data. Where an interrupted run is resumed, the data that it left
    /// stays, to be looked at with [`ChildWriter::holds`].
    ///
    /// # Errors
    /// As [`Staging::create`]; [`Kind::Io`] where a file can't be made; [`Kind::Data`] where another
    /// merge was interrupted, [`Kind::TryAgain`] where a parent changed since: what was left stays.
    pub fn create(output: &Path, layout: ChildLayout, how: Opened<'_>) -> Result<ChildWriter> {
        let staging = Staging::open(output, how.fsync)?;
        let left = if how.resume { read_journal(staging.dir())? } else { None };
        let found = match left {
            Some(Found { header, entries }) => {
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
            open: Mutex::default(),
            open_files: (OPEN_FILES / how.n_children.max(1)).max(1),
        };
        for shard in &writer.layout.shards {
            let file = staging.reopen_file(&shard.file_name)?;
            let path = staging.dir().join(&shard.file_name);
            file.set_len(shard.layout.total_bytes()).map_err(|error| write_error(&path, error))?;
            write_pieces(&file, &path, &shard.layout.head_pieces())?;
        }
        Ok(ChildWriter { staging: Some(staging), ..writer })
    }

    /// A child that is at its place already: what is written to it is dropped.
    pub fn complete(layout: ChildLayout) -> ChildWriter {
        ChildWriter {
            staging: None,
            layout,
            header: Value::Null,
            found: Vec::new(),
            journal: OnceLock::new(),
            open: Mutex::default(),
            open_files: 0,
        }
    }

    /// The work directory and what goes beside the weights; `None` for a complete child.
    pub fn staging(&self) -> Option<&Staging> {
        self.staging.as_ref()
    }

    /// What the journal of an interrupted run says of storages that it finished.
    pub fn found(&self) -> &[JournalEntry] {
        &self.found
    }

    /// Whether a storage is in its place with the CRC that the journal has. Reads all of it, through
    /// `buffer`.
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
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32IsoHdlc);
        let mut done = 0u64;
        while done < place.size_bytes {
            let length = usize::try_from(place.size_bytes - done).unwrap_or(usize::MAX);
            let length = length.min(buffer.len()).max(1);
            let Some(part) = buffer.get_mut(..length) else { return Ok(false) };
            file.read_exact_at(part, place.offset.saturating_add(done)).map_err(|error| {
                let path = staging.dir().join(&self.layout.shards[place.shard].file_name);
                Error::from_io(Kind::Io, "cannot read what was left", &path, error)
            })?;
            digest.update(part);
            done += length as u64;
        }
        Ok(digest.finalize() == u64::from(entry.crc32))
    }

    /// Starts the journal, with what is left of an interrupted run and whole.
    ///
    /// # Errors
    /// [`Kind::Io`] with the path.
    pub fn start_journal(&self, kept: &[JournalEntry]) -> Result<()> {
        let Some(staging) = &self.staging else { return Ok(()) };
        // Set once: a merge starts its journal once.
        let _ = self.journal.set(Journal::start(staging.dir(), &self.header, kept)?);
        Ok(())
    }

    /// Notes in the journal that a storage is written whole; `found` is what else is known of it.
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

    /// Writes bytes of a storage at `offset` from its start.
    ///
    /// # Errors
    /// [`Kind::Io`] with the file's path.
    pub fn write(&self, storage: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let Some(staging) = &self.staging else { return Ok(()) };
        let place = self.layout.places.get(storage).copied();
        let place = place.ok_or_else(|| lost(staging.output()))?;
        let end = offset.saturating_add(bytes.len() as u64);
        if end > place.size_bytes {
            return Err(Error::new(Kind::Internal, "a write leaves its storage")
                .expected(format!("at most {} bytes", place.size_bytes), format!("{end}")));
        }
        let file = self.file(staging, place.shard)?;
        file.write_all_at(bytes, place.offset + offset).map_err(|error| {
            write_error(&staging.dir().join(&self.layout.shards[place.shard].file_name), error)
        })
    }

    /// Brings to disk what the open weight files have so far, where files are flushed at all.
    ///
    /// # Errors
    /// [`Kind::Io`] with the file's path: the kernel may have dropped what it could not write.
    pub fn flush_written(&self) -> Result<()> {
        let Some(staging) = self.staging.as_ref().filter(|staging| staging.fsync()) else {
            return Ok(());
        };
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        open.iter().try_for_each(|(shard, file)| {
            staging.flush(file, &self.layout.shards[*shard].file_name)
        })
    }

    /// Writes what depends on the data's CRCs, and flushes every weight file. `sums` by the child's
    /// storage index. Then the index JSON, where there are several shards.
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
            write_pieces(&file, &staging.dir().join(&shard.file_name), &tail)?;
            staging.flush(&file, &shard.file_name)?;
        }
        if let Some(json) = self.layout.index_text(total_size, total_parameters) {
            staging.write_file(INDEX_FILE_NAME, json.as_bytes())?;
        }
        Ok(())
    }

    /// Lets the child appear. See [`Staging::commit`].
    ///
    /// # Errors
    /// As [`Staging::commit`].
    pub fn commit(self, overwrite: bool) -> Result<()> {
        self.staging.map_or(Ok(()), |staging| staging.commit(overwrite))
    }

    /// Lets what is written so far stay for a later run, and gives its path.
    pub fn keep(self) -> Option<PathBuf> {
        self.staging.map(Staging::keep)
    }

    fn file(&self, staging: &Staging, shard: usize) -> Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = open.iter().find(|entry| entry.0 == shard) {
            return Ok(Arc::clone(&entry.1));
        }
        let file = Arc::new(staging.existing_file(&self.layout.shards[shard].file_name)?);
        if open.len() >= self.open_files {
            open.pop_front();
        }
        open.push_back((shard, Arc::clone(&file)));
        Ok(file)
    }
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

/// The work directory belongs to a merge that differs: (what, there, here).
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

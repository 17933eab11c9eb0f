//! The child's weight files in the making: written in place, in any order, by any thread.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::checkpoint::split::INDEX_FILE_NAME;
use crate::checkpoint::staging::Staging;
use crate::error::{Error, Kind, Result};
use crate::format::{EmitTensor, Piece, ShardLayout, StorageSum, index_text};

/// Weight files of one child that stay open at once.
const OPEN_FILES: usize = 32;

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

/// A child being written.
#[derive(Debug)]
pub struct ChildWriter {
    staging: Staging,
    layout: ChildLayout,
    open: Mutex<VecDeque<(usize, Arc<File>)>>,
}

impl ChildWriter {
    /// Makes the work directory and all weight files, at their full length, with everything in them
    /// that does not depend on the data.
    ///
    /// # Errors
    /// As [`Staging::create`]; [`Kind::Io`] where a file can't be made.
    pub fn create(output: &Path, layout: ChildLayout, fsync: bool) -> Result<ChildWriter> {
        let staging = Staging::create(output, fsync)?;
        let writer = ChildWriter { staging, layout, open: Mutex::new(VecDeque::new()) };
        for shard in &writer.layout.shards {
            let file = writer.staging.create_file(&shard.file_name)?;
            file.set_len(shard.layout.total_bytes())
                .map_err(|error| writer.write_error(&shard.file_name, error))?;
            writer.write_pieces(&file, &shard.file_name, &shard.layout.head_pieces())?;
        }
        Ok(writer)
    }

    /// The work directory and what goes beside the weights.
    pub fn staging(&self) -> &Staging {
        &self.staging
    }

    /// Writes bytes of a storage at `offset` from its start.
    ///
    /// # Errors
    /// [`Kind::Io`] with the file's path.
    pub fn write(&self, storage: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let place = self.layout.places.get(storage).copied();
        let place = place.ok_or_else(|| lost(self.staging.output()))?;
        let end = offset.saturating_add(bytes.len() as u64);
        if end > place.size_bytes {
            return Err(Error::new(Kind::Internal, "a write leaves its storage")
                .expected(format!("at most {} bytes", place.size_bytes), format!("{end}")));
        }
        let file = self.file(place.shard)?;
        file.write_all_at(bytes, place.offset + offset)
            .map_err(|error| self.write_error(&self.layout.shards[place.shard].file_name, error))
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
        for (position, shard) in self.layout.shards.iter().enumerate() {
            let own: Vec<StorageSum> =
                shard.storages.iter().filter_map(|storage| sums.get(*storage).copied()).collect();
            let tail = shard
                .layout
                .tail_pieces(&own)
                .map_err(|error| Error::new(Kind::Internal, error.to_string()).caused_by(error))?;
            let file = self.file(position)?;
            self.write_pieces(&file, &shard.file_name, &tail)?;
            self.staging.flush(&file, &shard.file_name)?;
        }
        if let Some(json) = self.layout.index_text(total_size, total_parameters) {
            self.staging.write_file(INDEX_FILE_NAME, json.as_bytes())?;
        }
        Ok(())
    }

    /// Lets the child appear. See [`Staging::commit`].
    ///
    /// # Errors
    /// As [`Staging::commit`].
    pub fn commit(self, overwrite: bool) -> Result<()> {
        self.staging.commit(overwrite)
    }

    fn write_pieces(&self, file: &File, name: &str, pieces: &[Piece]) -> Result<()> {
        for piece in pieces {
            file.write_all_at(&piece.bytes, piece.offset)
                .map_err(|error| self.write_error(name, error))?;
        }
        Ok(())
    }

    fn write_error(&self, name: &str, error: std::io::Error) -> Error {
        let path = self.staging.dir().join(name);
        let full = matches!(
            error.kind(),
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
        );
        let error = Error::from_io(Kind::Io, "cannot write the child", &path, error);
        if full {
            error.with_hint("free some space and merge again; nothing was left")
        } else {
            error
        }
    }

    fn file(&self, shard: usize) -> Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = open.iter().find(|entry| entry.0 == shard) {
            return Ok(Arc::clone(&entry.1));
        }
        let name = &self.layout.shards[shard].file_name;
        let path = self.staging.dir().join(name);
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(|error| {
            Error::from_io(Kind::Io, "cannot open the child's file", &path, error)
        })?;
        let file = Arc::new(file);
        if open.len() >= OPEN_FILES {
            open.pop_front();
        }
        open.push_back((shard, Arc::clone(&file)));
        Ok(file)
    }
}

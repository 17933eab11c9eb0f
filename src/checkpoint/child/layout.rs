//! Lays out a child's weight files: names, dtypes and shapes fix every offset before there is data.

use std::path::Path;

use crate::checkpoint::weights::names::WeightNames;
use crate::error::{Error, Kind, Result};
use crate::format::{EmitTensor, FileLayout, WeightFormat, index_text};

/// One weight file to be written.
#[derive(Clone, Debug)]
pub struct ShardSpec {
    /// File name in the child's directory.
    pub file_name: String,
    /// Its tensors in order, with the child's indices of storages.
    pub tensors: Vec<EmitTensor>,
}

/// Layout of all weight files of a child, known before its data.
#[derive(Debug)]
pub struct ChildLayout {
    pub(super) shards: Vec<Shard>,
    /// Where each storage of the child is.
    pub(super) places: Vec<Place>,
    /// How the files are named.
    names: WeightNames,
    format: WeightFormat,
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) file_name: String,
    pub(super) layout: FileLayout,
    /// The child's indices of the storages in this shard.
    pub(super) storages: Vec<usize>,
    /// Names of its tensors, for the index.
    names: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) shard: usize,
    pub(super) offset: u64,
    pub(super) size_bytes: u64,
}

impl ChildLayout {
    /// Lays out the weight files of a child at `output`.
    ///
    /// # Errors
    /// [`Kind::Data`] where the format can't hold the tensors.
    pub fn new(
        output: &Path,
        (names, format): (WeightNames, WeightFormat),
        specs: &[ShardSpec],
        storage_bytes: &[u64],
    ) -> Result<ChildLayout> {
        let mut places = vec![None; storage_bytes.len()];
        let mut shards = Vec::with_capacity(specs.len());
        for (position, spec) in specs.iter().enumerate() {
            // As in torch.save, the folder inside the zip is named after the path as given.
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
            let layout = FileLayout::new(format, &final_path.to_string_lossy(), &tensors, &sizes)
                .map_err(|error| {
                Error::new(Kind::Data, error.to_string()).file(&final_path).caused_by(error)
            })?;
            for (index, storage) in storages.iter().enumerate() {
                let offset = layout.storage_offset(index).ok_or_else(|| no_place(&final_path))?;
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
            .map(|place| place.ok_or_else(|| no_place(output)))
            .collect::<Result<Vec<_>>>()?;
        Ok(ChildLayout { shards, places, names, format })
    }

    /// Names and sizes in bytes of the weight files, the index among them where there is one.
    pub fn files(&self, total_size: u64, total_parameters: u64) -> Vec<(String, u64)> {
        let shards = self.shards.iter();
        let mut files: Vec<(String, u64)> =
            shards.map(|shard| (shard.file_name.clone(), shard.layout.total_bytes())).collect();
        if let Some((name, json)) = self.index(total_size, total_parameters) {
            files.push((name, json.len() as u64));
        }
        files
    }

    /// Name and text of the index JSON, where there are several shards.
    pub(super) fn index(&self, total_size: u64, total_parameters: u64) -> Option<(String, String)> {
        let names = |shard: &'_ Shard| -> Vec<(String, String)> {
            let name = |name: &String| (name.clone(), shard.file_name.clone());
            shard.names.iter().map(name).collect()
        };
        let parameters = self.names.counts_parameters().then_some(total_parameters);
        let map: Vec<(String, String)> = self.shards.iter().flat_map(names).collect();
        let weight_map = map.iter().map(|(name, file)| (name.as_str(), file.as_str()));
        (self.shards.len() > 1).then(|| {
            (self.names.index(self.format), index_text(parameters, total_size, weight_map))
        })
    }

    /// Total length of the weight files in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.layout.total_bytes()).fold(0, u64::saturating_add)
    }
}

pub(super) fn no_place(path: &Path) -> Error {
    Error::new(Kind::Internal, "a storage has no place in the child").file(path)
}

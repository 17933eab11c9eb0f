//! One weight file to be written, in either format.

use serde::Serialize;

use crate::format::emit_error::EmitError;
use crate::format::safetensors::layout::SafetensorsLayout;
use crate::format::torch::pickle::write::storages::EmitTensor;
use crate::format::torch::shard_layout::ShardLayout;
use crate::format::torch::zip::write::layout::{Piece, StorageSum};

/// The format of weight files. The first line of a variant's documentation is its help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "torch", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum WeightFormat {
    /// What torch.save writes.
    #[default]
    Bin,
    /// safetensors: no pickle, and no checksums.
    Safetensors,
}

impl WeightFormat {
    /// Both, in the order in which they are taken where a directory has both.
    pub const ALL: [WeightFormat; 2] = [WeightFormat::Bin, WeightFormat::Safetensors];

    /// Its word: the extension of its files.
    pub fn name(self) -> &'static str {
        match self {
            WeightFormat::Bin => "bin",
            WeightFormat::Safetensors => "safetensors",
        }
    }
}

/// Every offset of one weight file, known before its data. Storages go by the caller's own index.
#[derive(Clone, Debug)]
pub enum FileLayout {
    /// `torch.save`'s.
    Bin(ShardLayout),
    /// safetensors'.
    Safetensors(SafetensorsLayout),
}

impl FileLayout {
    /// Lays out `tensors` over storages of `storage_bytes` bytes each. `final_path` is the path under
    /// which the file will be found, as the user gave it.
    ///
    /// # Errors
    /// See [`EmitError`]; nothing has been written.
    pub fn new(
        format: WeightFormat,
        final_path: &str,
        tensors: &[EmitTensor],
        storage_bytes: &[u64],
    ) -> Result<FileLayout, EmitError> {
        match format {
            WeightFormat::Bin => {
                ShardLayout::new(final_path, tensors, storage_bytes).map(FileLayout::Bin)
            }
            WeightFormat::Safetensors => {
                SafetensorsLayout::new(tensors, storage_bytes).map(FileLayout::Safetensors)
            }
        }
    }

    /// Length of the finished file in bytes.
    pub fn total_bytes(&self) -> u64 {
        match self {
            FileLayout::Bin(layout) => layout.total_bytes(),
            FileLayout::Safetensors(layout) => layout.total_bytes(),
        }
    }

    /// Position of a storage's first byte; `None` where there is no such storage.
    pub fn storage_offset(&self, storage: usize) -> Option<u64> {
        match self {
            FileLayout::Bin(layout) => layout.storage_offset(storage),
            FileLayout::Safetensors(layout) => layout.storage_offset(storage),
        }
    }

    /// What can be written before the data.
    pub fn head_pieces(&self) -> Vec<Piece> {
        match self {
            FileLayout::Bin(layout) => layout.head_pieces(),
            FileLayout::Safetensors(layout) => vec![layout.head_piece()],
        }
    }

    /// What is written when all data is known; `sums` by the caller's storage index.
    ///
    /// # Errors
    /// [`EmitError::ChecksumCount`] unless there is one sum per storage.
    pub fn tail_pieces(&self, sums: &[StorageSum]) -> Result<Vec<Piece>, EmitError> {
        match self {
            FileLayout::Bin(layout) => layout.tail_pieces(sums),
            // Nothing in the file depends on its data.
            FileLayout::Safetensors(_) => Ok(Vec::new()),
        }
    }
}

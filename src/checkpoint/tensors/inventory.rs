//! `Inventory`: the tensors and storages of a checkpoint, over all its shards.

use std::collections::HashSet;

use crate::checkpoint::tensors::model_order::names::by_names;
use crate::checkpoint::tensors::model_order::{SavedTensor, restored, restored_beside};
use crate::format::{ByteOrder, Encoding, StateDict};
use crate::tensor::{DType, Layout};

/// All tensors and storages of a checkpoint, without their data.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Tensors in the order of the model's state dict, as far as it can be known.
    pub tensors: Vec<TensorEntry>,
    /// Storages of all files.
    pub storages: Vec<StorageEntry>,
    /// Pairs of tensors, by position, whose bytes were read and found equal where headers did not
    /// tell; the earlier one first.
    pub twins: Vec<(usize, usize)>,
}

/// One named tensor of a checkpoint.
#[derive(Clone, Debug)]
pub struct TensorEntry {
    /// Name in the state dict, unique in the checkpoint.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape, strides and offset, in elements.
    pub layout: Layout,
    /// Index into [`Inventory::storages`].
    pub storage: usize,
}

/// One storage and where its data is.
#[derive(Clone, Debug)]
pub struct StorageEntry {
    /// Index of the file in the checkpoint's list of files.
    pub file: usize,
    /// torch's key in that file.
    pub key: String,
    /// Length in bytes, decoded.
    pub size_bytes: u64,
    /// Byte position of the data in the file.
    pub file_offset: u64,
    /// How the bytes are stored.
    pub encoding: Encoding,
    /// Byte order of the elements.
    pub byte_order: ByteOrder,
    /// CRC-32 over the first `record_bytes` decoded bytes, where the file has one.
    pub crc32: Option<u32>,
    /// Bytes that `crc32` covers.
    pub record_bytes: u64,
}

impl Inventory {
    /// Appends the tensors of one file.
    pub fn append(&mut self, file: usize, state_dict: StateDict) {
        let base = self.storages.len();
        self.storages.extend(state_dict.storages.into_iter().map(|storage| StorageEntry {
            file,
            key: storage.key,
            size_bytes: storage.size_bytes,
            file_offset: storage.file_offset,
            encoding: storage.encoding,
            byte_order: storage.byte_order,
            crc32: storage.crc32,
            record_bytes: storage.record_bytes,
        }));
        self.tensors.extend(state_dict.tensors.into_iter().map(|tensor| TensorEntry {
            name: tensor.name,
            dtype: tensor.dtype,
            layout: tensor.layout,
            storage: base + tensor.storage,
        }));
    }

    /// The tensor of that name.
    pub fn find(&self, name: &str) -> Option<&TensorEntry> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// Index of the file that holds a tensor.
    pub fn file_of(&self, tensor: &TensorEntry) -> usize {
        self.storages.get(tensor.storage).map_or(0, |storage| storage.file)
    }

    /// Whether two tensors are the same view of the same storage.
    pub fn tied(&self, a: &TensorEntry, b: &TensorEntry) -> bool {
        a.storage == b.storage && a.dtype == b.dtype && a.layout == b.layout
    }

    /// Restores the model's order, which `save_pretrained` loses in shards (transformers 4.57.3),
    /// as far as files and names tell it.
    pub fn restore_model_order(&mut self) {
        if self.is_one_file() {
            return;
        }
        self.put(restored(&self.saved(0..self.tensors.len())));
    }

    /// Puts the tensors of safetensors, whose files are sorted by dtype and name, in the model's order
    /// as far as names tell it.
    pub(crate) fn order_by_names(&mut self) {
        self.put(by_names(&self.saved(0..self.tensors.len())));
    }

    fn put(&mut self, order: Vec<usize>) {
        let mut tensors: Vec<Option<TensorEntry>> =
            std::mem::take(&mut self.tensors).into_iter().map(Some).collect();
        self.tensors =
            order.into_iter().filter_map(|at| tensors.get_mut(at).and_then(Option::take)).collect();
    }

    /// Positions of the tensors in the model's order, as far as files, names and another checkpoint
    /// of the model tell it: `partners[i]` is the position of tensor i there.
    pub(crate) fn order_beside(&self, partners: &[Option<usize>]) -> Vec<usize> {
        let as_found: Vec<usize> = (0..self.tensors.len()).collect();
        if self.is_one_file() {
            return as_found;
        }
        // As saved, each file ends with the later names of tied tensors.
        let mut seen = HashSet::new();
        let later: Vec<bool> =
            self.tensors.iter().map(|tensor| !seen.insert(tensor.storage)).collect();
        let mut as_saved = as_found.clone();
        as_saved.sort_by_key(|position| (self.file_of(&self.tensors[*position]), later[*position]));
        let hint: Vec<Option<usize>> =
            as_saved.iter().map(|position| partners.get(*position).copied().flatten()).collect();
        match restored_beside(&self.saved(as_saved.iter().copied()), &hint) {
            Some(order) => order.into_iter().map(|at| as_saved[at]).collect(),
            None => as_found,
        }
    }

    fn is_one_file(&self) -> bool {
        self.storages.iter().all(|storage| storage.file == 0)
    }

    fn saved(&self, positions: impl Iterator<Item = usize>) -> Vec<SavedTensor<'_>> {
        positions
            .filter_map(|position| self.tensors.get(position))
            .map(|tensor| SavedTensor {
                name: &tensor.name,
                file: self.file_of(tensor),
                storage: tensor.storage,
                storage_bytes: self.storages.get(tensor.storage).map_or(0, |s| s.size_bytes),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(shards: &[&[(&str, usize, u64)]]) -> Inventory {
        let mut inventory = Inventory::default();
        let mut storages = std::collections::BTreeMap::new();
        for (file, tensors) in shards.iter().enumerate() {
            for (name, storage, size_bytes) in *tensors {
                storages.insert(*storage, (file, *size_bytes));
                inventory.tensors.push(TensorEntry {
                    name: (*name).to_owned(),
                    dtype: DType::UInt8,
                    layout: Layout::contiguous(&[*size_bytes]),
                    storage: *storage,
                });
            }
        }
        for (key, (file, size_bytes)) in storages {
            inventory.storages.push(StorageEntry {
                file,
                key: key.to_string(),
                size_bytes,
                file_offset: 0,
                encoding: Encoding::Stored,
                byte_order: ByteOrder::Little,
                crc32: None,
                record_bytes: size_bytes,
            });
        }
        inventory
    }

    fn order(inventory: &Inventory) -> Vec<&str> {
        inventory.tensors.iter().map(|tensor| tensor.name.as_str()).collect()
    }

    #[test]
    fn a_tied_lm_head_at_the_end_of_the_first_shard_goes_to_the_end() {
        let mut inventory = inventory(&[
            &[
                ("transformer.wte.weight", 0, 9),
                ("transformer.h.0.w", 1, 3),
                ("lm_head.weight", 0, 9),
            ],
            &[("transformer.h.1.w", 2, 3), ("transformer.ln_f.weight", 3, 1)],
        ]);
        inventory.restore_model_order();
        assert_eq!(
            order(&inventory),
            [
                "transformer.wte.weight",
                "transformer.h.0.w",
                "transformer.h.1.w",
                "transformer.ln_f.weight",
                "lm_head.weight"
            ]
        );
    }

    #[test]
    fn an_lm_head_that_overtook_the_last_layers_goes_behind_them() {
        let mut inventory = inventory(&[
            &[("model.embed_tokens.weight", 0, 90)],
            &[("model.layers.0.w", 1, 20), ("model.layers.1.w", 2, 20)],
            &[("lm_head.weight", 3, 90)],
            &[("model.layers.2.w", 4, 20), ("model.norm.weight", 5, 1)],
        ]);
        inventory.restore_model_order();
        let names = order(&inventory);
        assert_eq!(names[0], "model.embed_tokens.weight");
        assert_eq!(names[5], "lm_head.weight");
    }

    #[test]
    fn tied_embeddings_of_an_encoder_decoder_go_to_their_modules() {
        let mut inventory = inventory(&[
            &[
                ("shared.weight", 0, 9),
                ("encoder.block.0.w", 1, 1),
                ("encoder.embed_tokens.weight", 0, 9),
                ("decoder.embed_tokens.weight", 0, 9),
                ("lm_head.weight", 0, 9),
            ],
            &[("encoder.norm.w", 2, 1), ("decoder.block.0.w", 3, 1)],
        ]);
        inventory.restore_model_order();
        assert_eq!(
            order(&inventory),
            [
                "shared.weight",
                "encoder.embed_tokens.weight",
                "encoder.block.0.w",
                "encoder.norm.w",
                "decoder.embed_tokens.weight",
                "decoder.block.0.w",
                "lm_head.weight"
            ]
        );
    }

    #[test]
    fn a_single_file_keeps_its_order() {
        let mut inventory =
            inventory(&[&[("wte.weight", 0, 9), ("lm_head.weight", 0, 9), ("h.0.w", 1, 3)]]);
        inventory.restore_model_order();
        assert_eq!(order(&inventory), ["wte.weight", "lm_head.weight", "h.0.w"]);
    }
}

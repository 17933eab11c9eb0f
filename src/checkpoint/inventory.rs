//! The tensors of a whole checkpoint, over all its shards, in the model's order.

use crate::checkpoint::model_order::restored;
use crate::format::{ByteOrder, Encoding, StateDict};
use crate::tensor::{DType, Layout};

/// All tensors and storages of a checkpoint; no data.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Tensors in the order of the model's state dict, as far as the files tell it.
    pub tensors: Vec<TensorEntry>,
    /// Storages over all files.
    pub storages: Vec<StorageEntry>,
    /// Positions of tensors of which no header tells that their bytes are equal, and that were read
    /// and are; the earlier one first.
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

/// One storage and the file that it lies in.
#[derive(Clone, Debug)]
pub struct StorageEntry {
    /// Index of the file in the checkpoint's list of files.
    pub file: usize,
    /// torch's key in that file.
    pub key: String,
    /// Bytes once decoded.
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
    /// Adds the tensors of one file behind those that are there.
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

    /// The file that a tensor's bytes lie in.
    pub fn file_of(&self, tensor: &TensorEntry) -> usize {
        self.storages.get(tensor.storage).map_or(0, |storage| storage.file)
    }

    /// Whether two tensors are the same view of the same storage.
    pub fn tied(&self, a: &TensorEntry, b: &TensorEntry) -> bool {
        a.storage == b.storage && a.dtype == b.dtype && a.layout == b.layout
    }

    /// Puts back the order that `save_pretrained` loses in sharded files: it moves every later name
    /// of a tied tensor to the end of its shard, and lets a tensor larger than a whole shard
    /// overtake the shard being filled (transformers 4.57.3, huggingface_hub 0.36,
    /// `serialization/_base.py`).
    ///
    /// The files don't say where such a tensor stood, so it goes where models have it; what no rule
    /// moved keeps its place.
    pub fn restore_model_order(&mut self) {
        let files = self.storages.iter().map(|storage| storage.file + 1).max().unwrap_or(0);
        if files < 2 {
            return;
        }
        let mut moved = Vec::new();
        let mut kept: Vec<TensorEntry> = Vec::with_capacity(self.tensors.len());
        let mut seen_storages = std::collections::HashSet::new();
        let overtakers = self.overtakers(files);
        for tensor in std::mem::take(&mut self.tensors) {
            let tied_again = !seen_storages.insert(tensor.storage);
            let empty = self.storages.get(tensor.storage).is_none_or(|s| s.size_bytes == 0);
            if (tied_again && !empty) || overtakers.contains(&tensor.storage) {
                moved.push(tensor);
            } else {
                kept.push(tensor);
            }
        }
        if moved.is_empty() {
            self.tensors = kept;
            return;
        }
        let stay = kept.len();
        kept.append(&mut moved);
        let names: Vec<&str> = kept.iter().map(|tensor| tensor.name.as_str()).collect();
        let order = restored(&names, stay);
        let mut tensors: Vec<Option<TensorEntry>> = kept.into_iter().map(Some).collect();
        self.tensors =
            order.into_iter().filter_map(|at| tensors.get_mut(at).and_then(Option::take)).collect();
    }

    /// Storages that stand alone in a shard which is followed by another one and is no shard's
    /// natural end: they were larger than the limit and overtook the shard being filled.
    fn overtakers(&self, files: usize) -> std::collections::HashSet<usize> {
        let mut per_file = vec![Vec::new(); files];
        for (position, storage) in self.storages.iter().enumerate() {
            per_file[storage.file].push((position, storage.size_bytes));
        }
        // The limit was at least the largest sum of a shard that holds several storages.
        let limit = per_file
            .iter()
            .filter(|storages| storages.len() > 1)
            .map(|storages| storages.iter().map(|s| s.1).fold(0, u64::saturating_add))
            .max();
        let Some(limit) = limit else {
            return std::collections::HashSet::new();
        };
        per_file
            .iter()
            .take(files - 1)
            .filter_map(|storages| match storages.as_slice() {
                [(position, size)] if *size > limit => Some(*position),
                _ => None,
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

//! The split of tensors into files, as `save_pretrained` of transformers 4.57.3 decides it.
//!
//! ```text
//! size(t)   bytes of the whole storage behind t
//! group(t)  its storage; all storages of 0 bytes are one group
//!
//! in order, first members of groups only:
//!   size > max               a file of its own, numbered BEFORE the one being filled
//!   filled + size > max      close the file being filled, open the next
//!   else                     add
//! then every later member of a group goes to the END of its first member's file
//! ```
//!
//! So an oversized tensor overtakes, and a tied head sits at the end of the embedding's file. Where
//! one file is enough, it holds all tensors in their original order.
//!
//! Source: huggingface_hub 0.36.2 `serialization/_base.py` (`split_state_dict_into_shards_factory`)
//! and `serialization/_torch.py` (`get_torch_storage_id`, `get_torch_storage_size`).

use std::collections::HashMap;

/// What the split needs to know of one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitTensor {
    /// Its storage; tensors with the same one are tied.
    pub storage: usize,
    /// Size of the whole storage, in bytes.
    pub storage_bytes: u64,
}

/// The split of a checkpoint into files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// For each file, the positions of its tensors in the input, in the order of the file.
    pub shards: Vec<Vec<usize>>,
    /// Bytes of all storages, tied ones once: the index's `total_size`.
    pub total_bytes: u64,
}

/// Splits `tensors` into files of at most `max_bytes`; with 0, every tensor that has bytes gets a file
/// of its own. No tensors give no files.
pub fn split(tensors: &[SplitTensor], max_bytes: u64) -> Split {
    let mut groups = Groups::default();
    let mut shards = Vec::new();
    let mut open = Vec::new();
    let mut open_bytes = 0u64;
    let mut total_bytes = 0u64;
    for (position, tensor) in tensors.iter().enumerate() {
        if !groups.is_first_of_its_group(position, *tensor) {
            continue;
        }
        // Sums of sizes of real files stay far below u64.
        let bytes = tensor.storage_bytes;
        total_bytes = total_bytes.saturating_add(bytes);
        if bytes > max_bytes {
            shards.push(vec![position]);
            continue;
        }
        if open_bytes.saturating_add(bytes) > max_bytes {
            shards.push(std::mem::take(&mut open));
            open_bytes = 0;
        }
        open.push(position);
        open_bytes = open_bytes.saturating_add(bytes);
    }
    if !open.is_empty() {
        shards.push(open);
    }
    if shards.len() == 1 {
        let everything = (0..tensors.len()).collect();
        return Split { shards: vec![everything], total_bytes };
    }
    groups.append_later_members(&mut shards);
    Split { shards, total_bytes }
}

/// Tensors by storage, groups in order of first appearance.
#[derive(Default)]
struct Groups {
    /// Group by storage; `None` stands for all storages without bytes.
    by_storage: HashMap<Option<usize>, usize>,
    /// Per group: the first member and the later ones.
    members: Vec<(usize, Vec<usize>)>,
}

impl Groups {
    fn is_first_of_its_group(&mut self, position: usize, tensor: SplitTensor) -> bool {
        let storage = (tensor.storage_bytes > 0).then_some(tensor.storage);
        let next = self.members.len();
        let group = *self.by_storage.entry(storage).or_insert(next);
        match self.members.get_mut(group) {
            Some((_, later)) => {
                later.push(position);
                false
            }
            None => {
                self.members.push((position, Vec::new()));
                true
            }
        }
    }

    fn append_later_members(&self, shards: &mut [Vec<usize>]) {
        let shard_of: HashMap<usize, usize> = shards
            .iter()
            .enumerate()
            .flat_map(|(shard, members)| members.iter().map(move |position| (*position, shard)))
            .collect();
        for (first, later) in &self.members {
            if let Some(shard) = shard_of.get(first).and_then(|shard| shards.get_mut(*shard)) {
                shard.extend(later);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::WeightNames;
    use crate::format::WeightFormat;
    use crate::format::{EmitTensor, Piece, ShardLayout, StorageSum, index_text};
    use crate::tensor::DType;

    /// Splits tensors given as (storage, bytes).
    fn shards(tensors: &[(usize, u64)], max_bytes: u64) -> Vec<Vec<usize>> {
        let tensors: Vec<SplitTensor> = tensors
            .iter()
            .map(|(storage, storage_bytes)| SplitTensor {
                storage: *storage,
                storage_bytes: *storage_bytes,
            })
            .collect();
        split(&tensors, max_bytes).shards
    }

    #[test]
    fn an_oversized_tensor_overtakes_the_file_being_filled() {
        assert_eq!(shards(&[(0, 40), (1, 4000), (2, 40)], 100), [vec![1], vec![0, 2]]);
    }

    #[test]
    fn a_file_may_be_filled_to_the_last_byte() {
        assert_eq!(shards(&[(0, 50), (1, 50), (2, 1)], 100), [vec![0, 1], vec![2]]);
        assert_eq!(shards(&[(0, 100), (1, 1)], 100), [vec![0], vec![1]]);
        assert_eq!(shards(&[(0, 101), (1, 1)], 100), [vec![0], vec![1]]);
    }

    #[test]
    fn a_tied_tensor_goes_to_the_end_of_its_first_members_file() {
        let tied = [(0, 60), (1, 30), (2, 60), (0, 60)];
        assert_eq!(shards(&tied, 100), [vec![0, 1, 3], vec![2]]);
    }

    #[test]
    fn one_file_keeps_the_original_order() {
        assert_eq!(shards(&[(0, 60), (1, 30), (0, 60), (2, 5)], 1000), [vec![0, 1, 2, 3]]);
        assert_eq!(shards(&[(0, 60), (0, 60)], 10), [vec![0, 1]]);
    }

    #[test]
    fn tensors_without_bytes_are_one_group() {
        assert_eq!(
            shards(&[(0, 0), (1, 60), (2, 0), (3, 60), (4, 0)], 100),
            [vec![0, 1, 2, 4], vec![3]]
        );
    }

    #[test]
    fn a_limit_of_zero_gives_every_tensor_with_bytes_its_file() {
        assert_eq!(shards(&[(0, 1), (1, 0), (2, 1)], 0), [vec![0], vec![2], vec![1]]);
    }

    #[test]
    fn no_tensors_give_no_files() {
        assert_eq!(shards(&[], 100), [[0usize; 0]; 0]);
    }

    #[test]
    fn tied_storages_count_once() {
        let tensor = |storage, storage_bytes| SplitTensor { storage, storage_bytes };
        assert_eq!(split(&[tensor(0, 7), tensor(1, 5), tensor(0, 7)], 100).total_bytes, 12);
    }

    #[test]
    fn no_file_exceeds_the_limit_unless_it_is_one_group_and_no_tensor_is_lost() {
        let mut next = crate::tensor::chance(1);
        for _ in 0..500 {
            let sizes: Vec<u64> = (0..next(30) + 1).map(|_| next(50)).collect();
            let tensors: Vec<SplitTensor> = (0..next(60))
                .map(|_| next(sizes.len() as u64) as usize)
                .map(|storage| SplitTensor { storage, storage_bytes: sizes[storage] })
                .collect();
            let max_bytes = next(120);
            let result = split(&tensors, max_bytes);
            let mut seen = result.shards.concat();
            seen.sort_unstable();
            assert_eq!(seen, (0..tensors.len()).collect::<Vec<_>>());
            for shard in &result.shards {
                let mut storages: Vec<(usize, u64)> = shard
                    .iter()
                    .map(|position| (tensors[*position].storage, tensors[*position].storage_bytes))
                    .filter(|(_, bytes)| *bytes > 0)
                    .collect();
                storages.sort_unstable();
                storages.dedup();
                let bytes: u64 = storages.iter().map(|(_, bytes)| bytes).sum();
                assert!(!shard.is_empty());
                assert!(bytes <= max_bytes || storages.len() == 1);
            }
        }
    }

    /// Storages of the golden files in `tests/data/format-writer`, whose README has the script.
    fn golden_storages() -> Vec<Vec<u8>> {
        let f32_bits = |value: u8| f32::from(value).to_bits();
        // Whole numbers are exact in all three formats.
        let f16 = |value: u8| match value {
            0 => 0,
            _ => ((f32_bits(value) - (112 << 23)) >> 13) as u16,
        };
        vec![
            (0..10u8).flat_map(|value| f32::from(value).to_le_bytes()).collect(),
            (0..60u8).flat_map(|value| ((f32_bits(value) >> 16) as u16).to_le_bytes()).collect(),
            Vec::new(),
            7i64.to_le_bytes().to_vec(),
            vec![1, 0],
            (0..60).collect(),
            Vec::new(),
            (0..20u8).flat_map(|value| f16(value).to_le_bytes()).collect(),
        ]
    }

    fn golden_tensors() -> Vec<EmitTensor> {
        let mut tensors = vec![
            EmitTensor::contiguous("embed", DType::Float32, &[10], 0),
            EmitTensor::contiguous("huge", DType::BFloat16, &[4, 15], 1),
            EmitTensor::contiguous("é.empty", DType::Float32, &[0, 3], 2),
            EmitTensor::contiguous("scale", DType::Int64, &[], 3),
            EmitTensor::contiguous("mask", DType::Bool, &[2], 4),
            EmitTensor::contiguous("q", DType::Float8E4M3Fn, &[3, 2, 2, 5], 5),
            EmitTensor::contiguous("empty", DType::Int64, &[0], 6),
            EmitTensor::contiguous("head", DType::Float32, &[10], 0),
            EmitTensor::contiguous("slice", DType::Float16, &[4], 7),
        ];
        tensors[8].layout.storage_offset = 5;
        tensors
    }

    fn golden_file(name: &str) -> Vec<u8> {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/format-writer");
        std::fs::read(std::path::Path::new(directory).join(name)).expect("a golden file")
    }

    /// One file of the tensors at `members`, in memory.
    fn shard_bytes(name: &str, members: &[usize], tensors: &[EmitTensor]) -> Vec<u8> {
        let all = golden_storages();
        let mut used: Vec<usize> = Vec::new();
        let mut shard: Vec<EmitTensor> =
            members.iter().map(|position| tensors[*position].clone()).collect();
        for tensor in &mut shard {
            let local = used.iter().position(|storage| *storage == tensor.storage);
            let local = local.unwrap_or_else(|| {
                used.push(tensor.storage);
                used.len() - 1
            });
            tensor.storage = local;
        }
        let sizes: Vec<u64> = used.iter().map(|storage| all[*storage].len() as u64).collect();
        let layout = ShardLayout::new(name, &shard, &sizes).expect("valid");
        let sums: Vec<StorageSum> =
            used.iter().map(|storage| StorageSum::of(&all[*storage])).collect();
        let mut pieces = layout.head_pieces();
        pieces.extend(layout.tail_pieces(&sums).expect("one sum per storage"));
        pieces.extend(used.iter().enumerate().map(|(local, storage)| Piece {
            offset: layout.storage_offset(local).expect("valid"),
            bytes: all[*storage].clone(),
        }));
        let mut out = vec![0; layout.total_bytes() as usize];
        for piece in pieces {
            let start = piece.offset as usize;
            out[start..start + piece.bytes.len()].copy_from_slice(&piece.bytes);
        }
        out
    }

    #[test]
    fn a_state_dict_becomes_the_files_and_the_index_that_transformers_wrote() {
        let tensors = golden_tensors();
        let sizes: Vec<u64> = golden_storages().iter().map(|bytes| bytes.len() as u64).collect();
        let members: Vec<SplitTensor> = tensors
            .iter()
            .map(|tensor| SplitTensor {
                storage: tensor.storage,
                storage_bytes: sizes[tensor.storage],
            })
            .collect();
        let result = split(&members, 100);
        let names = WeightNames::Transformers.shards(WeightFormat::Bin, result.shards.len());
        for (name, members) in names.iter().zip(&result.shards) {
            assert!(shard_bytes(name, members, &tensors) == golden_file(name), "{name}");
        }
        let weight_map = names.iter().zip(&result.shards).flat_map(|(file, members)| {
            members.iter().map(|position| (tensors[*position].name.as_str(), file.as_str()))
        });
        // 272 parameters are those of the model through which the state dict was saved.
        let index = index_text(Some(272), result.total_bytes, weight_map);
        assert_eq!(
            index.as_bytes(),
            golden_file(&WeightNames::Transformers.index(WeightFormat::Bin))
        );
    }
}

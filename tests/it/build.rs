//! Writes small checkpoints: inputs for what the fixtures do not have.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use llm_slerp_merge::format::{
    EmitTensor, FileLayout, ShardLayout, StorageSum, WeightFormat, index_text,
};
use llm_slerp_merge::tensor::{DType, Layout};
use tch::{Kind, Tensor};

use crate::support::Loaded;

/// A state dict in the making.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dict {
    tensors: Vec<EmitTensor>,
    storages: Vec<Vec<u8>>,
    /// So many storages, from the first on, have no CRC.
    unsummed: usize,
}

impl Dict {
    pub(crate) fn new() -> Dict {
        Dict::default()
    }

    /// A tensor of these bytes.
    pub(crate) fn raw(mut self, name: &str, dtype: DType, shape: &[u64], bytes: Vec<u8>) -> Dict {
        self.tensors.push(EmitTensor::contiguous(name, dtype, shape, self.storages.len()));
        self.storages.push(bytes);
        self
    }

    /// A tensor of values that are rounded to `dtype`.
    pub(crate) fn with(self, name: &str, dtype: DType, shape: &[u64], values: &[f64]) -> Dict {
        let kind = match dtype {
            DType::Float16 => Kind::Half,
            DType::BFloat16 => Kind::BFloat16,
            DType::Float32 => Kind::Float,
            DType::Float64 => Kind::Double,
            DType::Int64 => Kind::Int64,
            DType::UInt8 => Kind::Uint8,
            other => panic!("no values of {other}"),
        };
        let bytes = Loaded::of(&Tensor::from_slice(values).to_kind(kind)).bytes;
        self.raw(name, dtype, shape, bytes)
    }

    /// A float32 tensor.
    pub(crate) fn f32(self, name: &str, shape: &[u64], values: &[f64]) -> Dict {
        self.with(name, DType::Float32, shape, values)
    }

    /// A float32 tensor of that shape whose elements all differ, and differ by `seed`.
    pub(crate) fn noise(self, name: &str, shape: &[u64], seed: u64) -> Dict {
        let numel = usize::try_from(shape.iter().product::<u64>()).unwrap();
        self.f32(name, shape, &noise(numel, seed))
    }

    /// Another name of the tensor `first`.
    pub(crate) fn tied(mut self, name: &str, first: &str) -> Dict {
        let tensor = self.tensors.iter().find(|tensor| tensor.name == first).unwrap().clone();
        self.tensors.push(EmitTensor { name: name.to_owned(), ..tensor });
        self
    }

    /// Another view of the storage of `first`.
    pub(crate) fn view(mut self, name: &str, first: &str, layout: Layout) -> Dict {
        let tensor = self.tensors.iter().find(|tensor| tensor.name == first).unwrap().clone();
        self.tensors.push(EmitTensor { name: name.to_owned(), layout, ..tensor });
        self
    }

    /// Writes no CRCs of the tensors so far: their fields are 0, torch's word for "not computed".
    pub(crate) fn unsummed(self) -> Dict {
        Dict { unsummed: self.storages.len(), ..self }
    }

    /// Writes one file.
    pub(crate) fn file(&self, path: &Path) {
        let sizes: Vec<u64> = self.storages.iter().map(|bytes| bytes.len() as u64).collect();
        let layout = ShardLayout::new(&path.to_string_lossy(), &self.tensors, &sizes).unwrap();
        let mut out = vec![0; usize::try_from(layout.total_bytes()).unwrap()];
        let mut write = |offset: u64, bytes: &[u8]| {
            let offset = usize::try_from(offset).unwrap();
            out[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        for (storage, bytes) in self.storages.iter().enumerate() {
            write(layout.storage_offset(storage).unwrap(), bytes);
        }
        let sum = |(place, bytes): (usize, &Vec<u8>)| match StorageSum::of(bytes) {
            sum if place < self.unsummed => StorageSum { crc32: 0, ..sum },
            sum => sum,
        };
        let sums: Vec<StorageSum> = self.storages.iter().enumerate().map(sum).collect();
        for piece in layout.head_pieces().iter().chain(&layout.tail_pieces(&sums).unwrap()) {
            write(piece.offset, &piece.bytes);
        }
        fs::write(path, out).unwrap();
    }

    /// Writes one file in safetensors, each tensor in a storage of its own.
    pub(crate) fn safetensors(&self, path: &Path) {
        let tensor =
            |(at, tensor): (usize, &EmitTensor)| EmitTensor { storage: at, ..tensor.clone() };
        let tensors: Vec<EmitTensor> = self.tensors.iter().enumerate().map(tensor).collect();
        let bytes = |tensor: &EmitTensor| &self.storages[tensor.storage];
        let sizes: Vec<u64> = self.tensors.iter().map(|t| bytes(t).len() as u64).collect();
        let layout = FileLayout::new(WeightFormat::Safetensors, "", &tensors, &sizes).unwrap();
        let mut out = layout.head_pieces().remove(0).bytes;
        out.resize(usize::try_from(layout.total_bytes()).unwrap(), 0);
        for (at, tensor) in self.tensors.iter().enumerate() {
            let start = usize::try_from(layout.storage_offset(at).unwrap()).unwrap();
            out[start..start + bytes(tensor).len()].copy_from_slice(bytes(tensor));
        }
        fs::write(path, out).unwrap();
    }

    /// Writes a model directory of one file with this config.json, and returns its path.
    pub(crate) fn model(&self, dir: &Path, name: &str, config: &str) -> PathBuf {
        let path = dir.join(name);
        fs::create_dir_all(&path).unwrap();
        self.file(&path.join("pytorch_model.bin"));
        fs::write(path.join("config.json"), config).unwrap();
        path
    }

    /// Writes a model directory of one file without a config.
    pub(crate) fn bare(&self, dir: &Path, name: &str) -> PathBuf {
        let path = self.model(dir, name, "{}");
        fs::remove_file(path.join("config.json")).unwrap();
        path
    }
}

/// Writes a model directory of several shards and their index, and returns its path.
pub(crate) fn sharded(dir: &Path, name: &str, shards: &[Dict]) -> PathBuf {
    let path = dir.join(name);
    fs::create_dir_all(&path).unwrap();
    let file_name = |i: usize| format!("pytorch_model-{:05}-of-{:05}.bin", i + 1, shards.len());
    let mut weight_map = Vec::new();
    for (position, shard) in shards.iter().enumerate() {
        shard.file(&path.join(file_name(position)));
        let names = shard.tensors.iter().map(|tensor| tensor.name.as_str());
        weight_map.extend(names.map(|name| (name, file_name(position))));
    }
    let weight_map = weight_map.iter().map(|(name, file)| (*name, file.as_str()));
    let index = index_text(Some(1), 1, weight_map);
    fs::write(path.join("pytorch_model.bin.index.json"), index).unwrap();
    path
}

/// Writes a file with one float16 tensor `w` of `numel` zeros, without writing the zeros: the disk
/// holds a few kilobytes. Its CRC field is 0, torch's word for "not computed".
pub(crate) fn hollow(path: &Path, numel: u64) {
    let tensor = EmitTensor::contiguous("w", DType::Float16, &[numel], 0);
    let layout = ShardLayout::new(&path.to_string_lossy(), &[tensor], &[numel * 2]).unwrap();
    let file = fs::File::create(path).unwrap();
    file.set_len(layout.total_bytes()).unwrap();
    let tail = layout.tail_pieces(&[StorageSum { crc32: 0, first_bytes: [0; 8] }]).unwrap();
    for piece in layout.head_pieces().iter().chain(&tail) {
        file.write_all_at(&piece.bytes, piece.offset).unwrap();
    }
}

/// `numel` values in -1..1 from a linear congruential generator.
pub(crate) fn noise(numel: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1u32 << 23) - 1.0
    };
    (0..numel).map(|_| next()).collect()
}

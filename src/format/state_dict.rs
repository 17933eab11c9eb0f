//! `StateDict`: what a checkpoint file holds, without its data: names, dtypes, layouts, and where
//! the bytes are.

use crate::tensor::{DType, Layout};

/// The state dict of one file: its tensors in the file's order, and their storages.
///
/// Validated when it is made: every tensor lies inside its storage, every storage inside the file,
/// ranks agree and no product overflows. Later floors need not check again.
#[derive(Clone, Debug)]
pub struct StateDict {
    /// Which container the file is.
    pub container: Container,
    /// Tensors in the order of the pickle's dict, of safetensors in the order of their bytes; names
    /// are unique.
    pub tensors: Vec<Tensor>,
    /// Storages in order of first use.
    pub storages: Vec<Storage>,
    /// The key under which the state dict was found (`state_dict`; `checkpoint.model` where it lies
    /// deeper), `None` where it is the top level.
    pub nest: Option<String>,
    /// Keys beside the tensors that are not tensors (`epoch`, `lr`), and those beside the state dict,
    /// in order.
    pub skipped: Vec<String>,
    /// Values of other programs that were left out, in order: one item per name and entry.
    pub opaque: Vec<OpaqueValue>,
}

/// Values of one name below one entry, left out unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpaqueValue {
    /// The entry of the checkpoint (`args`, `model.config`); empty where no entry holds it.
    pub entry: String,
    /// `module.name`.
    pub name: String,
    /// Tensors that nothing else holds; they are not merged.
    pub tensors: usize,
}

/// The container of a checkpoint file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Container {
    /// Zip archive, `torch.save` since 1.6.
    Zip,
    /// Consecutive pickles, `torch.save` before 1.6.
    Legacy,
    /// safetensors.
    Safetensors,
}

impl Container {
    /// Its name in one word.
    pub fn name(self) -> &'static str {
        match self {
            Container::Zip => "zip",
            Container::Legacy => "legacy",
            Container::Safetensors => "safetensors",
        }
    }

    /// Whether it is an archive with a CRC-32 for each record (0 where the writer computed none).
    pub fn has_checksums(self) -> bool {
        match self {
            Container::Zip => true,
            Container::Legacy | Container::Safetensors => false,
        }
    }
}

/// One named tensor.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Name in the state dict.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape, strides, offset into the storage, in elements of `dtype`.
    pub layout: Layout,
    /// Index into [`StateDict::storages`]. Two tensors with the same index share memory.
    pub storage: usize,
}

/// A run of bytes that tensors are views of.
#[derive(Clone, Debug)]
pub struct Storage {
    /// torch's key: `0`, `1`, ... or an address as text; in safetensors the tensor's name.
    pub key: String,
    /// Bytes of the storage once decoded.
    pub size_bytes: u64,
    /// Byte position of the stored data in the file.
    pub file_offset: u64,
    /// How the bytes are stored.
    pub encoding: Encoding,
    /// Byte order of the elements.
    pub byte_order: ByteOrder,
    /// CRC-32 (zip polynomial) of the decoded bytes, where the file has one. A stored 0 over bytes
    /// that are there means that it was never computed, and is `None` here.
    pub crc32: Option<u32>,
    /// Bytes that `crc32` covers, from the storage's start; at least `size_bytes`.
    pub record_bytes: u64,
}

/// How a storage's bytes lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    Stored,
    /// Raw deflate (zip method 8), in this many bytes of the file.
    Deflated {
        /// Length in the file, in bytes.
        compressed_bytes: u64,
    },
}

/// Byte order of a storage's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// As on all machines we run on.
    Little,
    /// Written on a big-endian host; elements are swapped when read.
    Big,
}

//! Lays out one weight file as a whole: the pickle and the zip around it.

use crate::format::emit_error::EmitError;
use crate::format::torch::pickle::write::pickler::data_pkl;
use crate::format::torch::pickle::write::storages::EmitTensor;
use crate::format::torch::zip::write::folder::top_folder;
use crate::format::torch::zip::write::layout::{ArchiveLayout, Piece, StorageSum};
use crate::format::torch::zip::write::serialization_id::MAX_RECORDS;

/// Every offset of one weight file, known before its data: the bytes are those of `torch.save` 2.11
/// for the plain dict of the same tensors.
///
/// Storages go by the caller's own index throughout; their order in the file is that of first use.
///
/// ```
/// use llm_slerp_merge::format::{EmitTensor, ShardLayout, StorageSum};
/// use llm_slerp_merge::tensor::DType;
///
/// let tensors = [EmitTensor::contiguous("w", DType::Float32, &[2, 3], 0)];
/// let layout = ShardLayout::new("out/pytorch_model.bin", &tensors, &[24])?;
/// let mut file = vec![0; usize::try_from(layout.total_bytes())?];
/// let payload = [7; 24];
/// let mut write = |offset: u64, bytes: &[u8]| {
///     let start = offset as usize;
///     file[start..start + bytes.len()].copy_from_slice(bytes);
/// };
/// for piece in layout.head_pieces() {
///     write(piece.offset, &piece.bytes);
/// }
/// write(layout.storage_offset(0).expect("there is one"), &payload);
/// for piece in layout.tail_pieces(&[StorageSum::of(&payload)])? {
///     write(piece.offset, &piece.bytes);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ShardLayout {
    archive: ArchiveLayout,
    /// Position of each storage's bytes, by the caller's index.
    offsets: Vec<u64>,
    /// The caller's index of `data/0`, `data/1`, ...
    order: Vec<usize>,
}

impl ShardLayout {
    /// Lays out `tensors`, in this order, over storages of `storage_bytes` bytes each.
    ///
    /// `final_path` is the path under which the file will be found, as the user gave it: it names
    /// the folder inside the zip, also while the file is written under another name.
    ///
    /// # Errors
    /// See [`EmitError`]; nothing has been written.
    pub fn new(
        final_path: &str,
        tensors: &[EmitTensor],
        storage_bytes: &[u64],
    ) -> Result<ShardLayout, EmitError> {
        let folder = top_folder(final_path)?;
        if tensors.len() > MAX_RECORDS {
            return Err(EmitError::TooMany { count: tensors.len(), limit: MAX_RECORDS });
        }
        let pickle = data_pkl(tensors, storage_bytes)?;
        let sizes: Vec<u64> = pickle
            .storage_order
            .iter()
            .filter_map(|storage| storage_bytes.get(*storage).copied())
            .collect();
        let archive = ArchiveLayout::new(folder, pickle.bytes, &sizes)?;
        let mut offsets = vec![0; storage_bytes.len()];
        for (storage, offset) in pickle.storage_order.iter().zip(archive.storage_offsets()) {
            if let Some(slot) = offsets.get_mut(*storage) {
                *slot = offset;
            }
        }
        Ok(ShardLayout { archive, offsets, order: pickle.storage_order })
    }

    /// Length of the finished file, in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.archive.total_bytes()
    }

    /// Position of a storage's first byte, a multiple of 64; `None` where there is no such storage.
    pub fn storage_offset(&self, storage: usize) -> Option<u64> {
        self.offsets.get(storage).copied()
    }

    /// What can be written before the data.
    pub fn head_pieces(&self) -> Vec<Piece> {
        self.archive.head_pieces()
    }

    /// What is written when all data is known; `sums` by the caller's storage index.
    ///
    /// # Errors
    /// [`EmitError::ChecksumCount`] unless there is one sum per storage.
    pub fn tail_pieces(&self, sums: &[StorageSum]) -> Result<Vec<Piece>, EmitError> {
        let by_key: Vec<StorageSum> =
            self.order.iter().filter_map(|storage| sums.get(*storage).copied()).collect();
        if sums.len() != self.order.len() {
            let expected = self.order.len();
            return Err(EmitError::ChecksumCount { expected, found: sums.len() });
        }
        self.archive.tail_pieces(&by_key)
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::tensor::DType;

    /// Writes a whole file in memory.
    fn file(path: &str, tensors: &[EmitTensor], storages: &[Vec<u8>]) -> Vec<u8> {
        let sizes: Vec<u64> = storages.iter().map(|bytes| bytes.len() as u64).collect();
        let layout = ShardLayout::new(path, tensors, &sizes).expect("valid");
        let mut out = vec![0; layout.total_bytes() as usize];
        let mut write = |offset: u64, bytes: &[u8]| {
            out[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
        };
        for (storage, bytes) in storages.iter().enumerate() {
            write(layout.storage_offset(storage).expect("valid"), bytes);
        }
        let sums: Vec<StorageSum> = storages.iter().map(|bytes| StorageSum::of(bytes)).collect();
        let tail = layout.tail_pieces(&sums).expect("one sum per storage");
        for piece in layout.head_pieces().iter().chain(&tail) {
            write(piece.offset, &piece.bytes);
        }
        out
    }

    fn f32_bytes(count: u8) -> Vec<u8> {
        (0..count).flat_map(|value| f32::from(value).to_le_bytes()).collect()
    }

    fn tensor(name: &str, dtype: DType, shape: &[u64], storage: usize) -> EmitTensor {
        EmitTensor::contiguous(name, dtype, shape, storage)
    }

    /// Compares with the length, id and SHA-256 of the file that torch.save 2.11.0 wrote.
    fn assert_golden(file: &[u8], length: usize, id: &str, sha256: &str) {
        assert_eq!(file.len(), length);
        assert!(file.windows(40).any(|window| window == id.as_bytes()), "id {id}");
        let digest: String =
            Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, sha256);
    }

    #[test]
    fn two_tensors_are_written_as_torch_does() {
        let tensors =
            [tensor("a", DType::Float32, &[3], 0), tensor("b.weight", DType::BFloat16, &[2, 3], 1)];
        assert_golden(
            &file("pytorch_model.bin", &tensors, &[f32_bytes(3), vec![0; 12]]),
            1941,
            "0561108523619670529416268068519886268913",
            "60392b4f55b19b08b6b7c882abdf7a147f837310d0febce5357ea0cdb9eb3188",
        );
    }

    #[test]
    fn one_tensor_is_written_as_torch_does() {
        let tensors = [tensor("w", DType::Float32, &[2, 3], 0)];
        assert_golden(
            &file("out/pytorch_model.bin", &tensors, &[f32_bytes(6)]),
            1619,
            "1572819951185464302605679427294478288987",
            "651d306fe2f77f91d3249e9a9d65db2078701a23bcc7513cf1d037bbd45f6fc8",
        );
    }

    #[test]
    fn an_empty_state_dict_is_written_as_torch_does() {
        assert_golden(
            &file("pytorch_model.bin", &[], &[]),
            1297,
            "0290846867776292310400103495851195097541",
            "fd7e0ada6dfb700d5bec74f5f5dab751c4b3a1982517ac374735d3b15512b866",
        );
    }

    fn layers(count: i32) -> Vec<u8> {
        let tensors: Vec<EmitTensor> = (0..count)
            .map(|layer| {
                tensor(&format!("model.layers.{layer}.w"), DType::Int32, &[1], layer as usize)
            })
            .collect();
        let storages: Vec<Vec<u8>> = (0..count).map(|layer| layer.to_le_bytes().to_vec()).collect();
        file("pytorch_model-00001-of-00002.bin", &tensors, &storages)
    }

    #[test]
    fn a_full_batch_of_a_thousand_is_followed_by_an_empty_one() {
        assert_golden(
            &layers(1000),
            311_477,
            "0245022420703457934806913249221842012020",
            "a6e63a3a58c42dc0788fbac6638a268ee04bf9ee7678889a1ecbb2e34bb54f50",
        );
    }

    #[test]
    fn the_thousand_and_first_tensor_is_a_batch_of_its_own() {
        assert_golden(
            &layers(1001),
            311_817,
            "1232608528896025285904134182577942228305",
            "6deb7f152290abc51f01a718fe32b18ded9d323a701d01f09350c3c2299a63a7",
        );
    }

    #[test]
    fn tied_scalar_and_empty_tensors_are_written_as_torch_does() {
        let tensors = [
            tensor("embed", DType::Float32, &[2, 3], 0),
            tensor("x", DType::Bool, &[4], 1),
            tensor("head", DType::Float32, &[2, 3], 0),
            tensor("s", DType::Int64, &[], 2),
            tensor("e", DType::Float16, &[0, 3], 3),
        ];
        let storages = [f32_bytes(6), vec![0, 1, 1, 0], 7i64.to_le_bytes().to_vec(), Vec::new()];
        assert_golden(
            &file("pytorch_model.bin", &tensors, &storages),
            2457,
            "1077862729799854162500451158118910557303",
            "56753ce583900d8831a21ac7f2df8faa2da56ecd1e6243232f7136cefc2e6649",
        );
    }

    #[test]
    fn dtypes_without_a_storage_class_are_written_as_torch_does() {
        let tensors =
            [tensor("q", DType::Float8E4M3Fn, &[4], 0), tensor("u", DType::UInt16, &[70_000], 1)];
        assert_golden(
            &file("pytorch_model.bin", &tensors, &[vec![0x38, 0x40, 0x44, 0x48], vec![0; 140_000]]),
            141_909,
            "0561108523619670529417028506186065125556",
            "88883b28879b08ed912c21128922161ed290bddb0bcd56c5c96be40f6e553999",
        );
    }

    #[test]
    fn a_payload_that_begins_like_a_data_descriptor_enters_the_id() {
        let tensors = [tensor("p", DType::UInt8, &[12], 0)];
        assert_golden(
            &file("pytorch_model.bin", &tensors, &[b"PK\x07\x08\xde\xad\xbe\xefxxxx".to_vec()]),
            1619,
            "1572819951185464302603759449939925916362",
            "28a34c897c6fa767070ac81d35605c65cacd23b25c5c4ae50257bcbc747e0d7e",
        );
    }

    #[test]
    fn storages_given_out_of_order_give_the_same_file() {
        let in_order = [tensor("a", DType::UInt8, &[1], 0), tensor("b", DType::UInt8, &[2], 1)];
        let swapped = [tensor("a", DType::UInt8, &[1], 1), tensor("b", DType::UInt8, &[2], 0)];
        assert_eq!(
            file("m.bin", &in_order, &[vec![1], vec![2, 3]]),
            file("m.bin", &swapped, &[vec![2, 3], vec![1]])
        );
    }
}

//! Numbers the storages of a pickle that is written, and checks that its tensors fit them.
//!
//! Source: torch 2.11 `torch/serialization.py` (`_save`, `persistent_id`).

use crate::format::emit_error::EmitError;
use crate::tensor::{DType, Layout};

/// One tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmitTensor {
    /// Name in the state dict.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape, strides and offset in the storage, in elements.
    pub layout: Layout,
    /// Which storage. Tensors with the same index share its bytes.
    pub storage: usize,
}

impl EmitTensor {
    /// A contiguous tensor at the start of its storage. `shape` is in elements.
    pub fn contiguous(
        name: impl Into<String>,
        dtype: DType,
        shape: &[u64],
        storage: usize,
    ) -> EmitTensor {
        EmitTensor { name: name.into(), dtype, layout: Layout::contiguous(shape), storage }
    }
}

/// Numbers the storages in order of first use and checks the tensors against them.
pub(super) struct Storages<'a> {
    size_bytes: &'a [u64],
    /// Per storage: its key and the dtype of its first tensor.
    seen: Vec<Option<(usize, DType)>>,
    order: Vec<usize>,
}

impl<'a> Storages<'a> {
    pub(super) fn new(size_bytes: &'a [u64]) -> Storages<'a> {
        Storages { size_bytes, seen: vec![None; size_bytes.len()], order: Vec::new() }
    }

    /// Key and size in bytes of the tensor's storage.
    ///
    /// # Errors
    /// A storage that was not given, a tensor outside it, a second storage class.
    pub(super) fn enter(&mut self, tensor: &EmitTensor) -> Result<(usize, u64), EmitError> {
        let name = || tensor.name.clone();
        let storage = tensor.storage;
        let (Some(&bytes), Some(seen)) = (self.size_bytes.get(storage), self.seen.get_mut(storage))
        else {
            let count = self.size_bytes.len();
            return Err(EmitError::UnknownStorage { name: name(), storage, count });
        };
        let layout = &tensor.layout;
        if layout.shape.len() != layout.stride.len() {
            return Err(EmitError::RankMismatch { name: name() });
        }
        let end_bytes = layout.end().and_then(|end| end.checked_mul(tensor.dtype.size_bytes()));
        if end_bytes.is_none_or(|end| end > bytes) {
            return Err(EmitError::OutsideStorage { name: name(), storage_bytes: bytes });
        }
        if let Some((key, first)) = *seen {
            // torch compares storages by address, and those of 0 bytes have none.
            if bytes > 0 && saved_as(first) != saved_as(tensor.dtype) {
                return Err(EmitError::TwoDTypes { name: name(), first, second: tensor.dtype });
            }
            return Ok((key, bytes));
        }
        let key = self.order.len();
        *seen = Some((key, tensor.dtype));
        self.order.push(storage);
        Ok((key, bytes))
    }

    /// The storages in order of first use.
    ///
    /// # Errors
    /// [`EmitError::UnusedStorage`].
    pub(super) fn finish(self) -> Result<Vec<usize>, EmitError> {
        match self.seen.iter().position(Option::is_none) {
            Some(storage) => Err(EmitError::UnusedStorage { storage }),
            None => Ok(self.order),
        }
    }
}

/// The dtype that torch compares when two tensors share a storage: untyped storages count as uint8.
fn saved_as(dtype: DType) -> DType {
    if dtype.storage_class().is_some() { dtype } else { DType::UInt8 }
}

#[cfg(test)]
mod tests {
    use crate::format::torch::pickle::write::pickler::data_pkl;

    use super::*;

    #[test]
    fn storages_are_numbered_by_first_use() {
        let tensors = [
            EmitTensor::contiguous("a", DType::Float32, &[1], 2),
            EmitTensor::contiguous("b", DType::Float32, &[1], 0),
            EmitTensor::contiguous("c", DType::Float32, &[1], 2),
            EmitTensor::contiguous("d", DType::Float32, &[1], 1),
        ];
        let pickle = data_pkl(&tensors, &[4, 4, 4]).expect("valid");
        assert_eq!(pickle.storage_order, [2, 0, 1]);
    }

    #[test]
    fn tensors_that_do_not_fit_their_storage_are_refused() {
        let tensor =
            |shape: &[u64], storage| EmitTensor::contiguous("a", DType::Float32, shape, storage);
        let refused = |tensors: &[EmitTensor], sizes: &[u64]| data_pkl(tensors, sizes).err();
        assert_eq!(
            refused(&[tensor(&[2], 0)], &[7]),
            Some(EmitError::OutsideStorage { name: "a".into(), storage_bytes: 7 })
        );
        assert_eq!(
            refused(&[tensor(&[1 << 62, 16], 0)], &[7]),
            Some(EmitError::OutsideStorage { name: "a".into(), storage_bytes: 7 })
        );
        assert_eq!(
            refused(&[tensor(&[1], 3)], &[4]),
            Some(EmitError::UnknownStorage { name: "a".into(), storage: 3, count: 1 })
        );
        assert_eq!(
            refused(&[tensor(&[1], 0)], &[4, 4]),
            Some(EmitError::UnusedStorage { storage: 1 })
        );
        let mut bad = tensor(&[1], 0);
        bad.layout.stride.push(1);
        assert_eq!(refused(&[bad], &[4]), Some(EmitError::RankMismatch { name: "a".into() }));
    }

    #[test]
    fn one_storage_under_two_storage_classes_is_refused_as_torch_does() {
        let pair = |first, second| {
            data_pkl(
                &[
                    EmitTensor::contiguous("a", first, &[1], 0),
                    EmitTensor::contiguous("b", second, &[1], 0),
                ],
                &[4],
            )
        };
        assert_eq!(
            pair(DType::Float32, DType::Int32).err(),
            Some(EmitError::TwoDTypes {
                name: "b".into(),
                first: DType::Float32,
                second: DType::Int32
            })
        );
        assert!(pair(DType::Float8E4M3Fn, DType::Float8E5M2).is_ok());
    }
}

//! A safetensors file to be written: the header, and where each tensor goes.
//!
//! As the library writes it: tensors by dtype, the most aligned first, then by name; the header padded
//! with blanks to a multiple of eight bytes.
//!
//! Source: the crate `safetensors` 0.8 (`prepare` in `tensor.rs`) and transformers 4.57.3
//! (`save_pretrained`), whose metadata is `{"format": "pt"}`.

use std::collections::{HashMap, HashSet};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::format::emit_error::EmitError;
use crate::format::safetensors::dtypes::to_dtype;
use crate::format::safetensors::header::{
    LENGTH_BYTES, MAX_ENTRIES, MAX_HEADER_BYTES, METADATA, is_name,
};
use crate::format::torch::pickle::write::storages::EmitTensor;
use crate::format::torch::zip::write::layout::Piece;

/// Every offset of one safetensors file, known before its data. Nothing in the file depends on the data.
#[derive(Clone, Debug)]
pub struct SafetensorsLayout {
    /// The length and the header.
    head: Vec<u8>,
    /// Position of each storage's bytes, by the caller's index.
    offsets: Vec<u64>,
    total_bytes: u64,
}

impl SafetensorsLayout {
    /// Lays out `tensors`, each contiguous and alone in its storage of `storage_bytes` bytes.
    ///
    /// # Errors
    /// A name or dtype that safetensors can't have; a tensor that is not all of its storage, or shares it;
    /// a header above 100 MB, a file above 2^63 - 1 bytes.
    pub(crate) fn new(
        tensors: &[EmitTensor],
        storage_bytes: &[u64],
    ) -> Result<SafetensorsLayout, EmitError> {
        if tensors.len() >= MAX_ENTRIES {
            return Err(EmitError::TooMany { count: tensors.len(), limit: MAX_ENTRIES - 1 });
        }
        let mut sorted = checked(tensors, storage_bytes)?;
        sorted.sort_by(|(a_dtype, a), (b_dtype, b)| b_dtype.cmp(a_dtype).then(a.name.cmp(&b.name)));
        let mut next = 0u64;
        let mut begins = vec![0; storage_bytes.len()];
        let mut infos = Vec::with_capacity(sorted.len());
        let number = |value: u64| usize::try_from(value).map_err(|_| EmitError::TooLarge);
        for (dtype, tensor) in sorted {
            let (Some(begin), Some(bytes)) =
                (begins.get_mut(tensor.storage), storage_bytes.get(tensor.storage))
            else {
                continue;
            };
            *begin = next;
            let end = next.checked_add(*bytes).filter(|end| i64::try_from(*end).is_ok());
            let end = end.ok_or(EmitError::TooLarge)?;
            let shape = tensor.layout.shape.iter().map(|size| number(*size));
            infos.push((
                tensor.name.clone(),
                TensorInfo {
                    dtype,
                    shape: shape.collect::<Result<_, _>>()?,
                    data_offsets: (number(next)?, number(end)?),
                },
            ));
            next = end;
        }
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let head = header(metadata, infos)?;
        let data_offset = head.len() as u64;
        let total_bytes = data_offset
            .checked_add(next)
            .filter(|total| i64::try_from(*total).is_ok())
            .ok_or(EmitError::TooLarge)?;
        let offsets = begins.into_iter().map(|begin| begin + data_offset).collect();
        Ok(SafetensorsLayout { head, offsets, total_bytes })
    }

    /// Length of the finished file in bytes.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Position of a storage's first byte, a multiple of its element's size.
    pub(crate) fn storage_offset(&self, storage: usize) -> Option<u64> {
        self.offsets.get(storage).copied()
    }

    /// Length and header.
    pub(crate) fn head_piece(&self) -> Piece {
        Piece { offset: 0, bytes: self.head.clone() }
    }
}

/// The tensors with their dtypes, each of which a file can have.
fn checked<'t>(
    tensors: &'t [EmitTensor],
    storage_bytes: &[u64],
) -> Result<Vec<(Dtype, &'t EmitTensor)>, EmitError> {
    let mut names = HashSet::with_capacity(tensors.len());
    let mut seen = vec![false; storage_bytes.len()];
    let mut checked = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let name = || tensor.name.clone();
        if tensor.name == METADATA || !is_name(&tensor.name) {
            return Err(EmitError::Name { name: name() });
        }
        if !names.insert(&tensor.name) {
            return Err(EmitError::DuplicateName { name: name() });
        }
        let Some(dtype) = to_dtype(tensor.dtype) else {
            return Err(EmitError::DType { name: name(), dtype: tensor.dtype });
        };
        let (storage, count) = (tensor.storage, storage_bytes.len());
        let (Some(bytes), Some(seen)) = (storage_bytes.get(storage), seen.get_mut(storage)) else {
            return Err(EmitError::UnknownStorage { name: name(), storage, count });
        };
        let layout = &tensor.layout;
        let shown = layout.numel().and_then(|n| n.checked_mul(tensor.dtype.size_bytes()));
        let whole = layout.is_contiguous() && (layout.storage_offset == 0 || shown == Some(0));
        if std::mem::replace(seen, true) || !whole || shown != Some(*bytes) {
            return Err(EmitError::NotAlone { name: name() });
        }
        checked.push((dtype, tensor));
    }
    match seen.iter().position(|seen| !seen) {
        Some(storage) => Err(EmitError::UnusedStorage { storage }),
        None => Ok(checked),
    }
}

/// The length and the header, written by the library's own types.
fn header(
    metadata: HashMap<String, String>,
    infos: Vec<(String, TensorInfo)>,
) -> Result<Vec<u8>, EmitError> {
    let broken = |error: &dyn std::fmt::Display| EmitError::Header { found: error.to_string() };
    let metadata = Metadata::new(Some(metadata), infos).map_err(|error| broken(&error))?;
    let mut text = serde_json::to_vec(&metadata).map_err(|error| broken(&error))?;
    text.resize(text.len().next_multiple_of(8), b' ');
    let length = text.len() as u64;
    if length > MAX_HEADER_BYTES {
        return Err(EmitError::HeaderTooLong { bytes: length, limit: MAX_HEADER_BYTES });
    }
    let mut head = length.to_le_bytes().to_vec();
    debug_assert_eq!(head.len() as u64, LENGTH_BYTES);
    head.append(&mut text);
    Ok(head)
}

//! Makes a state dict of a safetensors file: every tensor alone in its storage, every byte claimed once.

use crate::format::error::{FormatError, Rule};
use crate::format::read_at::ReadAt;
use crate::format::safetensors::header::{self, Entry, Header};
use crate::format::state_dict::{ByteOrder, Container, Encoding, StateDict, Storage, Tensor};
use crate::tensor::Layout;

/// Reads the state dict of one file: its header only, no tensor data. Tensors come in the order of
/// their bytes, which the library sorts by dtype and name.
///
/// # Errors
/// Those of the header; [`Rule::Truncated`] where the file ends before its data,
/// [`Rule::SafetensorsData`] where bytes belong to no tensor or to two, [`Rule::StorageSize`] where a
/// tensor's bytes are not those of its shape.
pub(crate) fn read(source: &dyn ReadAt) -> Result<StateDict, FormatError> {
    let Header { mut entries, data_offset } = header::read(source)?;
    // Stable: empty tensors at one place keep the header's order.
    entries.sort_by_key(|entry| (entry.begin, entry.end));
    let data_bytes = source.len().saturating_sub(data_offset);
    let mut tensors = Vec::with_capacity(entries.len());
    let mut storages = Vec::with_capacity(entries.len());
    let mut next = 0;
    for entry in entries {
        let size_bytes = size(&entry, next, data_bytes)?;
        next = entry.end;
        storages.push(Storage {
            key: entry.name.clone(),
            size_bytes,
            file_offset: data_offset.saturating_add(entry.begin),
            encoding: Encoding::Stored,
            byte_order: ByteOrder::Little,
            crc32: None,
            record_bytes: size_bytes,
        });
        tensors.push(Tensor {
            name: entry.name,
            dtype: entry.dtype,
            layout: Layout::contiguous(&entry.shape),
            storage: tensors.len(),
        });
    }
    if next < data_bytes {
        let expected = format!("{next} bytes of data, as the header says");
        return Err(wrong(expected, format!("{data_bytes}")).at(data_offset.saturating_add(next)));
    }
    let (nest, skipped, opaque) = (None, Vec::new(), Vec::new());
    Ok(StateDict { container: Container::Safetensors, tensors, storages, nest, skipped, opaque })
}

/// Bytes of a tensor, which begins where the one before it ended.
fn size(entry: &Entry, next: u64, data_bytes: u64) -> Result<u64, FormatError> {
    let Entry { name, begin, end, .. } = entry;
    let Some(size_bytes) = end.checked_sub(*begin) else {
        let found = format!("[{begin}, {end}]");
        return Err(wrong("offsets that rise", found).tensor(name));
    };
    if *end > data_bytes {
        let (expected, found) = (format!("{end} bytes of data"), format!("{data_bytes}"));
        return Err(FormatError::new(Rule::Truncated, "safetensors data", expected, found)
            .tensor(name)
            .hint("download the file again"));
    }
    if *begin != next {
        let how = if *begin < next { "an overlap" } else { "a gap" };
        let found = format!("{how}: {begin}");
        return Err(wrong(format!("data from byte {next} on"), found).tensor(name));
    }
    let numel = crate::tensor::numel(&entry.shape);
    let shown = numel.and_then(|numel| numel.checked_mul(entry.dtype.size_bytes()));
    if shown != Some(size_bytes) {
        let bytes = shown.map_or("more than 2^64".to_owned(), |bytes| bytes.to_string());
        let expected = format!("{bytes} bytes for {} of {:?}", entry.dtype, entry.shape);
        let what = "safetensors data";
        return Err(FormatError::new(Rule::StorageSize, what, expected, size_bytes.to_string())
            .tensor(name));
    }
    Ok(size_bytes)
}

fn wrong(expected: impl Into<String>, found: impl Into<String>) -> FormatError {
    FormatError::new(Rule::SafetensorsData, "safetensors data", expected, found)
}

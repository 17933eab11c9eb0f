//! Compares all shards of a checkpoint with their index, and lists the differences.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::checkpoint::files::paths::file_name;
use crate::checkpoint::files::source::FileSource;
use crate::checkpoint::findings::finding::Finding;
use crate::checkpoint::tensors::buffer_names::is_buffer;
use crate::checkpoint::tensors::inventory::{Inventory, TensorEntry};
use crate::checkpoint::tensors::same_bytes::same_bytes;
use crate::error::Result;
use crate::format::Index;
use crate::tensor::DType;

/// Compares the index with the shards. Of a shard that could not be opened, nothing is said about
/// what it may hold. What a merge refuses is an error, what it passes over is a note.
pub(super) fn compare(
    index: &Index,
    index_path: &Path,
    (files, inventory): (&[FileSource], &Inventory),
    unopened: &HashSet<&str>,
) -> Result<Vec<Finding>> {
    let mapped: HashMap<&str, &str> =
        index.weight_map.iter().map(|entry| (entry.0.as_str(), entry.1.as_str())).collect();
    let names: Vec<String> = files.iter().map(|file| file_name(file.path())).collect();
    let mut place: HashMap<&str, &TensorEntry> = HashMap::new();
    let mut unmapped = vec![Vec::new(); names.len()];
    let mut buffers = vec![Vec::new(); names.len()];
    let mut repeated = vec![Vec::new(); names.len()];
    let mut differing = vec![Vec::new(); names.len()];
    let mut strayed = vec![Vec::new(); names.len()];
    // Names of which a later copy is in the shard that the index says.
    let mut at_home: HashSet<&str> = HashSet::new();
    for tensor in &inventory.tensors {
        let name = tensor.name.as_str();
        let file = inventory.file_of(tensor);
        if let Some(first) = place.get(name) {
            let same = same_bytes(files, inventory, first, tensor)?;
            let list = if same { &mut repeated } else { &mut differing };
            list[file].push(tensor.name.clone());
            if mapped.get(name).is_some_and(|shard| *shard == names[file]) {
                at_home.insert(name);
            }
            continue;
        }
        place.insert(name, tensor);
        match mapped.get(name) {
            None if is_buffer(name, &tensor.layout.shape) => {
                buffers[file].push(tensor.name.clone());
            }
            None => unmapped[file].push(tensor.name.clone()),
            Some(shard) if *shard != names[file] && !unopened.contains(shard) => {
                strayed[file].push(tensor.name.clone());
            }
            Some(_) => {}
        }
    }
    for names in &mut strayed {
        names.retain(|name: &String| !at_home.contains(name.as_str()));
    }
    let mut lacking: Vec<(&str, Vec<String>)> = Vec::new();
    for (name, shard) in &index.weight_map {
        if place.contains_key(name.as_str()) || unopened.contains(shard.as_str()) {
            continue;
        }
        match lacking.iter_mut().find(|entry| entry.0 == shard) {
            Some((_, tensors)) => tensors.push(name.clone()),
            None => lacking.push((shard, vec![name.clone()])),
        }
    }
    let mut found = Vec::new();
    for (position, file) in names.into_iter().enumerate() {
        let mut push = |make: fn(String, Vec<String>) -> Finding, of: &mut Vec<Vec<String>>| {
            let tensors = std::mem::take(&mut of[position]);
            if !tensors.is_empty() {
                found.push(make(file.clone(), tensors));
            }
        };
        push(|file, tensors| Finding::Unmapped { file, tensors }, &mut unmapped);
        push(|file, tensors| Finding::Buffers { file, tensors }, &mut buffers);
        push(|file, tensors| Finding::Differing { file, tensors }, &mut differing);
        push(|file, tensors| Finding::Repeated { file, tensors }, &mut repeated);
        push(|file, tensors| Finding::WrongShard { file, tensors }, &mut strayed);
    }
    let lacking = lacking.into_iter();
    found.extend(lacking.map(|(shard, tensors)| Finding::Lacking { file: shard.into(), tensors }));
    if found.is_empty() && unopened.is_empty() {
        found.extend(compare_total(index, index_path, inventory));
    }
    Ok(found)
}

/// Compares total_size with all sums that transformers has written: tied tensors counted each time
/// or once, bool as an eighth of a byte (before 4.38) and, today, whole storages.
fn compare_total(index: &Index, index_path: &Path, inventory: &Inventory) -> Option<Finding> {
    let said = index.total_size_bytes?;
    let mut seen = HashSet::new();
    let mut totals = [0u64; 5];
    for tensor in &inventory.tensors {
        let numel = tensor.layout.numel().unwrap_or(0);
        let bits = numel.saturating_mul(tensor.dtype.size_bytes()).saturating_mul(8);
        let old_bits = if tensor.dtype == DType::Bool { numel } else { bits };
        let first = seen.insert(tensor.storage);
        let storage = inventory.storages.get(tensor.storage).map_or(0, |s| s.size_bytes);
        let once = |bits: u64| if first { bits } else { 0 };
        let adds = [once(storage.saturating_mul(8)), bits, once(bits), old_bits, once(old_bits)];
        for (total, bits) in totals.iter_mut().zip(adds) {
            *total = total.saturating_add(bits);
        }
    }
    if totals.iter().any(|bits| bits / 8 == said) {
        return None;
    }
    let file = file_name(index_path);
    Some(Finding::TotalSize { file, expected: totals[0] / 8, found: said })
}

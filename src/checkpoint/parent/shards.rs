//! Compares shards with their index while they are opened, and stops at the first contradiction.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::checkpoint::files::paths::file_name;
use crate::checkpoint::files::source::FileSource;
use crate::checkpoint::tensors::buffer_names::is_buffer;
use crate::checkpoint::tensors::inventory::Inventory;
use crate::checkpoint::tensors::same_bytes::same_bytes;
use crate::checkpoint::weights::kinds::listed;
use crate::error::{Error, Kind, Result};
use crate::format::Index;
use crate::tensor::{counted, escape};

/// What is known of a tensor's name.
#[derive(Clone, Copy, Default)]
struct Known<'i> {
    /// The shard that the index maps it to.
    shard: Option<&'i str>,
    /// Its position in the inventory, once it was met.
    tensor: Option<usize>,
}

/// The state of the comparison.
pub(super) struct Shards<'i> {
    index_path: &'i Path,
    index: &'i Index,
    known: HashMap<&'i str, Known<'i>>,
    /// Buffers that the index does not map, with their positions in the inventory.
    unmapped: HashMap<String, usize>,
    /// Their names, in file order.
    buffers: Vec<String>,
    /// Names that are in two shards, with equal bytes.
    doubled: Vec<String>,
    /// Positions in the inventory of copies to be dropped.
    dropped: HashSet<usize>,
}

impl<'i> Shards<'i> {
    /// Starts before the first shard of this index.
    pub(super) fn new(index_path: &'i Path, index: &'i Index) -> Shards<'i> {
        let name = |entry: &'i (String, String)| {
            (entry.0.as_str(), Known { shard: Some(entry.1.as_str()), tensor: None })
        };
        Shards {
            index_path,
            index,
            known: index.weight_map.iter().map(name).collect(),
            unmapped: HashMap::new(),
            buffers: Vec::new(),
            doubled: Vec::new(),
            dropped: HashSet::new(),
        }
    }

    /// Checks the tensors of the shard read last, which begin at `from` in the inventory.
    ///
    /// # Errors
    /// [`Kind::Data`] for a tensor that the index does not map and that is no known buffer, and for
    /// one that an earlier shard holds with other bytes; errors of reading those bytes.
    pub(super) fn check(
        &mut self,
        files: &[FileSource],
        inventory: &Inventory,
        from: usize,
    ) -> Result<()> {
        let tensors = &inventory.tensors;
        for position in from..tensors.len() {
            let tensor = &tensors[position];
            let known = self.known.get(tensor.name.as_str()).copied();
            let earlier = match known {
                Some(known) => known.tensor,
                None => self.unmapped.get(&tensor.name).copied(),
            };
            let path = |position: usize| {
                let file = inventory.file_of(&tensors[position]);
                files.get(file).map_or(self.index_path, |file| file.path())
            };
            match (known, earlier) {
                (Some(_), None) => self.set(&tensor.name, position),
                (None, None) if is_buffer(&tensor.name, &tensor.layout.shape) => {
                    self.unmapped.insert(tensor.name.clone(), position);
                    self.buffers.push(tensor.name.clone());
                }
                (None, None) => {
                    let what = "a shard holds a tensor that the index does not map";
                    return Err(Error::new(Kind::Data, what)
                        .file(path(position))
                        .tensor(&tensor.name)
                        .expected(format!("an entry in {}", file_name(self.index_path)), "none")
                        .with_hint(
                            "index and shards are from different saves; download both again",
                        ));
                }
                (_, Some(earlier)) => {
                    if !same_bytes(files, inventory, &tensors[earlier], tensor)? {
                        return Err(Error::new(Kind::Data, "a tensor is in two shards")
                            .file(path(position))
                            .tensor(&tensor.name)
                            .expected(
                                "the same bytes in both",
                                format!("others in {}", file_name(path(earlier))),
                            )
                            .with_hint(
                                "one of the shards is from another save; download both and the \
                                 index again",
                            ));
                    }
                    self.doubled.push(tensor.name.clone());
                    let shard = known.and_then(|known| known.shard);
                    if shard.is_some_and(|shard| shard == file_name(path(position))) {
                        self.dropped.insert(earlier);
                        self.set(&tensor.name, position);
                    } else {
                        self.dropped.insert(position);
                    }
                }
            }
        }
        Ok(())
    }

    fn set(&mut self, name: &str, position: usize) {
        if let Some(known) = self.known.get_mut(name) {
            known.tensor = Some(position);
        }
    }

    /// Finishes after the last shard: checks that each name of the index was met, drops copies, and
    /// notes what was passed over.
    ///
    /// # Errors
    /// [`Kind::Data`] for a name that no shard holds.
    pub(super) fn finish(
        self,
        files: &[FileSource],
        inventory: &mut Inventory,
        notes: &mut Vec<String>,
    ) -> Result<()> {
        let mut elsewhere = 0u64;
        for (name, shard) in &self.index.weight_map {
            let expected = self.index_path.with_file_name(shard);
            let found = self.known.get(name.as_str()).and_then(|known| known.tensor);
            let Some(tensor) = found.and_then(|at| inventory.tensors.get(at)) else {
                return Err(Error::new(Kind::Data, "a shard lacks a tensor that the index names")
                    .file(&expected)
                    .tensor(name)
                    .expected("the tensor in this shard", "no such name in any shard")
                    .with_hint("index and shards are from different saves; download both again"));
            };
            let file = files.get(inventory.file_of(tensor));
            elsewhere += u64::from(file.is_some_and(|file| file.path() != expected));
        }
        if elsewhere > 0 {
            notes.push(format!(
                "the index names the wrong shard for {}; found all the same",
                counted(elsewhere, "tensor")
            ));
        }
        let names =
            |names: &[String]| listed(&names.iter().map(String::as_str).collect::<Vec<_>>());
        if !self.buffers.is_empty() {
            notes.push(format!(
                "{} that {} lacks {} taken: {}",
                counted(self.buffers.len() as u64, "buffer"),
                escape(&file_name(self.index_path)),
                if self.buffers.len() == 1 { "is" } else { "are" },
                names(&self.buffers)
            ));
        }
        if !self.doubled.is_empty() {
            notes.push(format!(
                "{} in two shards with equal bytes, used once: {}",
                counted(self.doubled.len() as u64, "tensor"),
                names(&self.doubled)
            ));
        }
        remove(inventory, &self.dropped);
        Ok(())
    }
}

/// Removes tensors from an inventory, and the storages that no tensor uses any more.
fn remove(inventory: &mut Inventory, dropped: &HashSet<usize>) {
    if dropped.is_empty() {
        return;
    }
    let mut position = 0usize;
    let mut orphans: HashSet<usize> = HashSet::new();
    inventory.tensors.retain(|tensor| {
        position += 1;
        let stays = !dropped.contains(&(position - 1));
        if !stays {
            orphans.insert(tensor.storage);
        }
        stays
    });
    inventory.tensors.iter().for_each(|tensor| {
        orphans.remove(&tensor.storage);
    });
    let mut places = Vec::with_capacity(inventory.storages.len());
    let mut kept = 0usize;
    for storage in 0..inventory.storages.len() {
        places.push(kept);
        kept += usize::from(!orphans.contains(&storage));
    }
    let mut storage = 0usize;
    inventory.storages.retain(|_| {
        storage += 1;
        !orphans.contains(&(storage - 1))
    });
    for tensor in &mut inventory.tensors {
        tensor.storage = places.get(tensor.storage).copied().unwrap_or(tensor.storage);
    }
}

/// The error for a shard that the index names and that is missing.
pub(crate) fn missing_shard(index_path: &Path, shard: &Path, shards: usize) -> Error {
    let shards = counted(shards as u64, "shard");
    Error::new(Kind::NoInput, "a shard is missing")
        .file(index_path)
        .expected(format!("{shards} beside the index"), format!("no `{}`", file_name(shard)))
        .with_hint("download that shard again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::tensors::inventory::{StorageEntry, TensorEntry};
    use crate::format::{ByteOrder, Encoding};
    use crate::tensor::{DType, Layout};

    #[test]
    fn storages_move_up_where_a_copy_is_taken_out() {
        let mut inventory = Inventory::default();
        for (position, name) in ["a", "w", "w", "b"].into_iter().enumerate() {
            inventory.storages.push(StorageEntry {
                file: position / 2,
                key: position.to_string(),
                size_bytes: 4,
                file_offset: 0,
                encoding: Encoding::Stored,
                byte_order: ByteOrder::Little,
                crc32: None,
                record_bytes: 4,
            });
            inventory.tensors.push(TensorEntry {
                name: name.to_owned(),
                dtype: DType::UInt8,
                layout: Layout::contiguous(&[4]),
                storage: position,
            });
        }
        // Tied to a copy that is dropped: its storage stays.
        inventory.tensors.push(TensorEntry { name: "c".into(), ..inventory.tensors[3].clone() });
        remove(&mut inventory, &HashSet::from([1, 3]));
        let left: Vec<(&str, &str)> = inventory
            .tensors
            .iter()
            .map(|tensor| (tensor.name.as_str(), inventory.storages[tensor.storage].key.as_str()))
            .collect();
        assert_eq!(left, [("a", "0"), ("w", "2"), ("c", "3")]);
        assert_eq!(inventory.storages.len(), 3);
    }
}

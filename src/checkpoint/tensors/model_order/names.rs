//! The order of a model's state dict by its names alone, for files that lost it: safetensors are sorted
//! by dtype and name.
//!
//! Known for certain is what torch does: a module's tensors stand before its parts, parts stay together,
//! and lists count. The rest is the order in which transformers' models register their parts, where
//! they are known ([`siblings`](super::siblings)); else the files' numbers, else what such words mostly
//! name.

use std::collections::HashMap;

use crate::checkpoint::tensors::model_order::SavedTensor;
use crate::checkpoint::tensors::model_order::modules::Modules;

/// Parts of one module that are compared with each other; modules have a dozen.
const MAX_PARTS: usize = 64;

/// Positions in `tensors`, whose names are unique, in the order of the model's state dict as far as
/// names tell it.
pub(in crate::checkpoint::tensors) fn by_names(tensors: &[SavedTensor<'_>]) -> Vec<usize> {
    let mut modules = Modules::of(tensors.iter().map(|tensor| tensor.name));
    // Per module, its parts in the files' order; per part, the first file that has some of it.
    let mut parts: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut first_file: HashMap<usize, usize> = HashMap::new();
    let mut tensor_of: HashMap<usize, usize> = HashMap::new();
    for (position, tensor) in tensors.iter().enumerate() {
        for node in modules.path(position) {
            let file = first_file.entry(*node).or_insert_with(|| {
                parts.entry(modules.parent(*node)).or_default().push(*node);
                tensor.file
            });
            *file = (*file).min(tensor.file);
        }
        if let Some(leaf) = modules.path(position).last() {
            tensor_of.insert(*leaf, position);
        }
    }
    let mut order = Vec::with_capacity(tensors.len());
    // Depth first, without recursion; the first part is on top.
    let mut open = vec![0];
    while let Some(node) = open.pop() {
        if let Some(tensor) = tensor_of.get(&node) {
            order.push(*tensor);
        }
        if let Some(parts) = parts.remove(&node) {
            open.extend(sorted(&mut modules, parts, &first_file).into_iter().rev());
        }
    }
    order
}

/// The parts of one module in order.
fn sorted(
    modules: &mut Modules<'_>,
    mut parts: Vec<usize>,
    first_file: &HashMap<usize, usize>,
) -> Vec<usize> {
    parts.sort_by_cached_key(|part| {
        let (leaf, number, rank, word) = modules.clues(*part);
        (!leaf, number, first_file.get(part).copied(), rank, word.to_owned())
    });
    if parts.len() > MAX_PARTS {
        return parts;
    }
    // Per part, those that must stand before it.
    let mut waits: Vec<Vec<usize>> = vec![Vec::new(); parts.len()];
    for (at, part) in parts.iter().enumerate() {
        for (before, other) in parts.iter().enumerate().filter(|(before, _)| *before != at) {
            let known = modules.by_rule(*other, *part).or_else(|| modules.by_table(*other, *part));
            if known == Some(true) {
                waits[at].push(before);
            }
        }
    }
    let mut left: Vec<usize> = (0..parts.len()).collect();
    let mut placed = vec![false; parts.len()];
    let mut order = Vec::with_capacity(parts.len());
    while !left.is_empty() {
        // Where the table goes in a circle, the first one.
        let free = left.iter().position(|at| waits[*at].iter().all(|before| placed[*before]));
        let next = left.remove(free.unwrap_or(0));
        placed[next] = true;
        order.push(parts[next]);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::chance;

    /// Names of state dicts in the order of transformers 4.57.3 (`scripts/siblings.py --orders`).
    const ORDERS: &str = include_str!("../../../../tests/data/orders.txt");

    /// The order of names that stand in these files.
    fn found<'n>(names: &[(&'n str, usize)]) -> Vec<&'n str> {
        let saved = |(storage, (name, file)): (usize, &(&'n str, usize))| SavedTensor {
            name,
            file: *file,
            storage,
            storage_bytes: 4,
        };
        let tensors: Vec<SavedTensor<'n>> = names.iter().enumerate().map(saved).collect();
        by_names(&tensors).into_iter().map(|at| tensors[at].name).collect()
    }

    #[test]
    fn families_come_back_from_any_order() {
        let mut next = chance(15);
        for line in ORDERS.lines() {
            let (family, names) = line.split_once(' ').unwrap();
            let order: Vec<&str> = names.split(' ').collect();
            let mut sorted: Vec<(&str, usize)> = order.iter().map(|name| (*name, 0)).collect();
            sorted.sort_unstable();
            assert_eq!(found(&sorted), order, "{family}");
            // In shards, each sorted.
            let shards = order.iter().enumerate().map(|(at, name)| (*name, at / 5));
            let mut shards: Vec<(&str, usize)> = shards.collect();
            shards.sort_unstable_by_key(|(name, file)| (*file, *name));
            assert_eq!(found(&shards), order, "{family} in shards");
            for at in (1..sorted.len()).rev() {
                sorted.swap(at, usize::try_from(next(at as u64 + 1)).unwrap());
            }
            assert_eq!(found(&sorted), order, "{family} shuffled");
        }
    }

    #[test]
    fn what_no_table_knows_follows_the_files_then_the_words() {
        let one =
            |names: &[&'static str]| found(&names.iter().map(|n| (*n, 0)).collect::<Vec<_>>());
        let names =
            ["z.out_head.w", "z.b.w", "z.emb.w", "z.norm.w", "a.w", "z.w", "z.l.10.w", "z.l.9.w"];
        let expected =
            ["a.w", "z.w", "z.emb.w", "z.b.w", "z.l.9.w", "z.l.10.w", "z.norm.w", "z.out_head.w"];
        assert_eq!(one(&names), expected);
        assert_eq!(found(&[("b.w", 1), ("a.w", 2), ("c.w", 0)]), ["c.w", "b.w", "a.w"]);
        assert!(found(&[]).is_empty());
        // Modules of more parts than are compared, and names of one word.
        let many: Vec<String> = (0..200).map(|at| format!("m.p{at:03}.w")).collect();
        let names: Vec<(&str, usize)> = many.iter().rev().map(|name| (name.as_str(), 0)).collect();
        assert_eq!(found(&names), many);
        assert_eq!(one(&["b", "a", "a.b"]), ["a", "b", "a.b"]);
    }
}

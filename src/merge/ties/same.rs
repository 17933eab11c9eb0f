//! Groups the tensors of one parent that are the same.

use std::collections::HashMap;

use crate::checkpoint::{Inventory, TensorEntry};
use crate::merge::names::embeddings::{embedding, is_embedding_name, is_vocab_name};
use crate::tensor::{DType, Layout};

/// Most tensors with one row per token that are compared with each other; models have up to six.
const MOST: usize = 32;

/// Which tensors of one parent are the same, by position.
#[derive(Debug)]
pub(crate) struct Same {
    /// Per tensor, the first that is the same.
    first: Vec<usize>,
    /// Of each first with others, all that are the same, in order.
    all: HashMap<usize, Vec<usize>>,
}

impl Same {
    /// Tensors that are stored as one. Empty tensors are never one.
    pub(super) fn stored(inventory: &Inventory) -> Same {
        let mut seen: HashMap<(usize, &Layout, DType), usize> = HashMap::new();
        let tensors = inventory.tensors.iter().enumerate();
        let first = tensors.map(|(position, tensor)| match tensor.layout.numel() {
            Some(0) => position,
            _ => *seen.entry((tensor.storage, &tensor.layout, tensor.dtype)).or_insert(position),
        });
        Same::of(first.collect())
    }

    /// Tensors that are stored as one and, of those with one row per token, those of equal bytes. Biases
    /// count only if `biases` is set: untrained ones are equal without being tied.
    pub(super) fn equal(inventory: &Inventory, biases: bool) -> Same {
        let mut first = Same::stored(inventory).first;
        let mut distinct: Vec<usize> = Vec::new();
        let mut joined: HashMap<usize, usize> = HashMap::new();
        let is_bias =
            |at: usize| inventory.tensors.get(at).is_none_or(|t| t.layout.shape.len() < 2);
        for position in vocabulary(inventory) {
            if (is_bias(position) && !biases) || first.get(position) != Some(&position) {
                continue;
            }
            match distinct.iter().find(|earlier| inventory.equal(**earlier, position)) {
                Some(earlier) => drop(joined.insert(position, *earlier)),
                None => distinct.push(position),
            }
        }
        for slot in &mut first {
            *slot = joined.get(slot).copied().unwrap_or(*slot);
        }
        Same::of(first)
    }

    fn of(first: Vec<usize>) -> Same {
        let mut all: HashMap<usize, Vec<usize>> = HashMap::new();
        for (position, first) in first.iter().enumerate().filter(|(at, first)| at != *first) {
            all.entry(*first).or_insert_with(|| vec![*first]).push(position);
        }
        Same { first, all }
    }

    /// The first tensor that is the same as the one at `position`.
    pub(crate) fn first(&self, position: usize) -> usize {
        self.first.get(position).copied().unwrap_or(position)
    }

    /// Positions of all tensors that are the same as the one at `position`; none where it is alone.
    pub(crate) fn all(&self, position: usize) -> &[usize] {
        self.all.get(&self.first(position)).map_or(&[], Vec::as_slice)
    }

    /// Whether one of the tensors that are the same as the one at `position` is an embedding.
    pub(super) fn is_embedding_too(&self, position: usize, inventory: &Inventory) -> bool {
        let tensors = self.all(position).iter().filter_map(|at| inventory.tensors.get(*at));
        tensors.map(|tensor| tensor.name.as_str()).any(is_embedding_name)
    }
}

/// Positions of the tensors with one row per token: embeddings, heads and their biases.
pub(super) fn vocabulary(inventory: &Inventory) -> Vec<usize> {
    let rows = embedding(inventory).and_then(|tensor| tensor.layout.shape.first().copied());
    let Some(rows) = rows else { return Vec::new() };
    let tensors = inventory.tensors.iter().enumerate();
    let has_rows = |tensor: &TensorEntry| {
        tensor.dtype.is_floating()
            && tensor.layout.shape.first() == Some(&rows)
            && rows > 0
            && (is_vocab_name(&tensor.name) || tensor.layout.shape.len() == 1)
    };
    tensors.filter(|(_, tensor)| has_rows(tensor)).map(|(at, _)| at).take(MOST).collect()
}

//! Names that are one tensor: output heads that are the embedding, however a parent stores them, and
//! all else that a parent stores as one.

mod apart;
#[cfg(test)]
mod heads_tests;
mod share;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use crate::checkpoint::{Checkpoint, Inventory, TensorEntry};
use crate::merge::embeddings::{embedding, is_embedding_name, is_head_matrix_name, is_vocab_name};
use crate::tensor::{DType, Layout};

pub use apart::stored_apart;
pub(crate) use share::{Share, lost_head_error};

/// Tensors with one row per token that are compared with each other; models have up to six.
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
    /// Those that are stored as one. Tensors without elements are never one.
    fn stored(inventory: &Inventory) -> Same {
        let mut seen: HashMap<(usize, &Layout, DType), usize> = HashMap::new();
        let tensors = inventory.tensors.iter().enumerate();
        let first = tensors.map(|(position, tensor)| match tensor.layout.numel() {
            Some(0) => position,
            _ => *seen.entry((tensor.storage, &tensor.layout, tensor.dtype)).or_insert(position),
        });
        Same::of(first.collect())
    }

    /// Those and, of the tensors with one row per token, those of equal bytes. Biases that were never
    /// trained are equal without being one, so they are left aside where that would tie them.
    fn equal(inventory: &Inventory, stored: &Same, biases: bool) -> Same {
        let mut first = stored.first.clone();
        let mut distinct: Vec<usize> = Vec::new();
        let mut joined: HashMap<usize, usize> = HashMap::new();
        let is_bias =
            |at: usize| inventory.tensors.get(at).is_none_or(|t| t.layout.shape.len() < 2);
        for position in vocabulary(inventory) {
            if is_bias(position) && !biases {
                continue;
            }
            if first.get(position) != Some(&position) {
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
}

/// What is known of tied tensors in both parents.
#[derive(Debug)]
pub(crate) struct Ties {
    /// Those of the primary that the child has as one: stored as one, or of equal bytes where
    /// config.json says that they are tied.
    ours: Same,
    /// Those of the primary that may be one where the secondary does not speak against it: of equal
    /// bytes, and config.json does not say that they are two.
    ours_perhaps: Same,
    /// Those of the secondary by whose values nothing is lost where the child has one.
    theirs: Same,
    /// `tie_word_embeddings` of the primary, where it is written.
    ours_said: Option<bool>,
    /// The secondary's.
    theirs_said: Option<bool>,
}

impl Ties {
    /// Reads no data: where headers don't tell whether a head is the embedding, it is so only if
    /// [`Checkpoint::compare`] found it for [`unsure`] pairs.
    pub(crate) fn of(primary: &Checkpoint, secondary: &Checkpoint) -> Ties {
        let (a, b) = (&primary.inventory, &secondary.inventory);
        let ours_said = said(primary);
        let stored = || Same::stored(a);
        let equal = || Same::equal(a, &stored(), false);
        let by = |counts: bool| if counts { equal() } else { stored() };
        Ties {
            ours: by(ours_said == Some(true)),
            ours_perhaps: by(ours_said != Some(false)),
            theirs: Same::equal(b, &Same::stored(b), true),
            ours_said,
            theirs_said: said(secondary),
        }
    }

    /// Whether a tensor of the primary is another name of one that `has_partner`.
    pub(crate) fn is_ours_elsewhere(
        &self,
        position: usize,
        has_partner: impl Fn(usize) -> bool,
    ) -> bool {
        self.ours_perhaps
            .all(position)
            .iter()
            .any(|other| *other != position && has_partner(*other))
    }

    /// The same of the secondary.
    pub(crate) fn is_theirs_elsewhere(
        &self,
        position: usize,
        has_partner: impl Fn(usize) -> bool,
    ) -> bool {
        self.theirs.all(position).iter().any(|other| *other != position && has_partner(*other))
    }

    /// The secondary's embedding as the partner of a head of the primary that the secondary does not
    /// store, because its config.json ties it to the embedding.
    pub(crate) fn stand_in(&self, tensor: &TensorEntry, secondary: &Checkpoint) -> Option<usize> {
        let is_head = is_head_matrix_name(&tensor.name) || is_embedding_name(&tensor.name);
        if self.theirs_said != Some(true) || !is_head || tensor.layout.shape.len() != 2 {
            return None;
        }
        let tensors = secondary.inventory.tensors.iter().enumerate();
        let embeddings = tensors.filter(|(_, other)| {
            is_embedding_name(&other.name)
                && other.dtype.is_floating()
                && other.layout.shape.len() == 2
                && other.layout.shape.get(1) == tensor.layout.shape.get(1)
        });
        let mut found: Option<(usize, bool)> = None;
        for (position, other) in embeddings {
            // Of two vocabularies the decoder's is the one that a head gives.
            let decodes = other.name.split('.').any(|part| part == "decoder");
            match found {
                Some((first, _)) if self.theirs.first(first) == self.theirs.first(position) => {}
                Some((_, true)) => {}
                Some(_) if !decodes => return None,
                _ => found = Some((position, decodes)),
            }
        }
        found.map(|found| found.0)
    }

    /// Whether a head that only the secondary stores has values of its own, while the primary has the
    /// embedding in its place and stores none.
    pub(crate) fn is_lost(&self, position: usize, secondary: &Checkpoint) -> bool {
        let Some(tensor) = secondary.inventory.tensors.get(position) else { return false };
        self.ours_said == Some(true)
            && is_head_matrix_name(&tensor.name)
            && tensor.layout.shape.len() == 2
            && !self.theirs.all(position).iter().any(|other| {
                let other = secondary.inventory.tensors.get(*other);
                other.is_some_and(|other| is_embedding_name(&other.name))
            })
    }
}

fn said(checkpoint: &Checkpoint) -> Option<bool> {
    checkpoint.config.as_ref().and_then(|config| config.facts().tie_word_embeddings)
}

/// Positions of the tensors with one row per token: embeddings, heads and their biases.
fn vocabulary(inventory: &Inventory) -> Vec<usize> {
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

/// Pairs of positions for [`Checkpoint::compare`]: tensors of one shape with one row per token of which
/// no header tells whether they are the same. None where config.json says that they are not.
pub fn unsure(checkpoint: &Checkpoint) -> Vec<(usize, usize)> {
    let inventory = &checkpoint.inventory;
    if said(checkpoint) == Some(false) {
        return Vec::new();
    }
    let all = vocabulary(inventory);
    let mut pairs = Vec::new();
    for (count, b) in all.iter().copied().enumerate() {
        for a in all.iter().take(count).copied() {
            let told = match (inventory.tensors.get(a), inventory.tensors.get(b)) {
                (Some(a), Some(b)) => inventory.equal_by_headers(a, b),
                _ => Some(false),
            };
            if told.is_none() {
                pairs.push((a, b));
            }
        }
    }
    pairs
}

/// Output heads, each with the embedding that config.json ties it to, whose values are others than the
/// embedding's: programs that follow config.json never read them.
pub fn differing_heads(checkpoint: &Checkpoint) -> Vec<(String, String)> {
    let inventory = &checkpoint.inventory;
    let Some(embedding) = embedding(inventory).filter(|_| said(checkpoint) == Some(true)) else {
        return Vec::new();
    };
    let same = Same::equal(inventory, &Same::stored(inventory), false);
    let is_embedding = |position: &usize| {
        inventory.tensors.get(*position).is_some_and(|tensor| is_embedding_name(&tensor.name))
    };
    let heads = inventory.tensors.iter().enumerate().filter(|(_, tensor)| is_head(tensor));
    let differing = heads.filter(|(position, _)| !same.all(*position).iter().any(is_embedding));
    differing.map(|(_, head)| (head.name.clone(), embedding.name.clone())).collect()
}

/// Whether the output head is the input embedding: as the weights are stored, by equal bytes where
/// config.json does not say otherwise, and by config.json where there is no head; a model with a head
/// that its files lack has it tied.
pub(crate) fn is_tied(checkpoint: &Checkpoint) -> Option<bool> {
    let inventory = &checkpoint.inventory;
    embedding(inventory)?;
    let said = said(checkpoint);
    let Some(head) = inventory.tensors.iter().position(is_head) else {
        let config = checkpoint.config.as_ref()?.facts();
        let generates = |name: &String| name.ends_with("ForCausalLM") || name.contains("LMHead");
        return said.or(config.architectures.iter().any(generates).then_some(true));
    };
    let stored = Same::stored(inventory);
    let same = if said == Some(false) { stored } else { Same::equal(inventory, &stored, false) };
    Some(same.all(head).iter().any(|position| {
        inventory.tensors.get(*position).is_some_and(|tensor| is_embedding_name(&tensor.name))
    }))
}

/// Whether a tensor is an output head's matrix.
pub(crate) fn is_head(tensor: &TensorEntry) -> bool {
    is_head_matrix_name(&tensor.name) && tensor.layout.shape.len() == 2
}

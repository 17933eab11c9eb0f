//! Vocabularies: how many rows each parent has, and which tensors have one row per token.

use serde::Serialize;

use crate::checkpoint::config::NewRows;
use crate::checkpoint::{Checkpoint, Inventory, TensorEntry};
use crate::merge::wrappers::is_wrapper;

/// Ends of the names of input embeddings, most common first.
const EMBEDDINGS: [&str; 10] = [
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
    "shared.weight",
    "embedding.weight",
    "embeddings.weight",
    "token_embedding.weight",
    "word_embedding.weight",
];

/// Ends of the names of output heads, one row per token.
const HEADS: [&str; 7] = [
    "lm_head.weight",
    "lm_head.bias",
    "embed_out.weight",
    "embed_out.bias",
    "output.weight",
    "decoder.weight",
    "decoder.bias",
];

/// Those of [`HEADS`] that name nothing else in any model.
const PLAIN_HEADS: [&str; 4] =
    ["lm_head.weight", "lm_head.bias", "embed_out.weight", "embed_out.bias"];

/// Rows of both vocabularies and of the child's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Vocab {
    /// Rows of the primary's input embedding.
    pub primary: u64,
    /// Rows of the secondary's input embedding.
    pub secondary: u64,
}

impl Vocab {
    /// Both vocabularies, or `None` where a parent has no input embedding (a vision model).
    pub fn of(primary: &Checkpoint, secondary: &Checkpoint) -> Option<Vocab> {
        Some(Vocab { primary: rows(primary)?, secondary: rows(secondary)? })
    }

    /// Rows of the child: the longer of the two.
    pub fn child(&self) -> u64 {
        self.primary.max(self.secondary)
    }

    /// Rows before and after the merge, for the child's config.
    pub(crate) fn rows(&self) -> NewRows {
        NewRows { old: self.primary, new: self.child() }
    }

    /// Whether one parent must be extended.
    pub fn differs(&self) -> bool {
        self.primary != self.secondary
    }
}

/// Row count of a parent's input embedding; where none is known by name, the config's vocab_size
/// if a matrix has that many rows.
pub(crate) fn rows(parent: &Checkpoint) -> Option<u64> {
    if let Some(embedding) = embedding(&parent.inventory) {
        return embedding.layout.shape.first().copied();
    }
    let vocab_size = parent.config.as_ref()?.facts().vocab_size?;
    parent
        .inventory
        .tensors
        .iter()
        .any(|tensor| tensor.layout.shape.len() == 2 && tensor.layout.shape[0] == vocab_size)
        .then_some(vocab_size)
}

/// The input embedding of a state dict.
pub fn embedding(inventory: &Inventory) -> Option<&TensorEntry> {
    EMBEDDINGS.iter().find_map(|end| {
        inventory.tensors.iter().find(|tensor| {
            ends_with_module(&tensor.name, end)
                && tensor.layout.shape.len() == 2
                && tensor.dtype.is_floating()
        })
    })
}

/// Name and rows of the input embedding and, behind it, of the heads whose names leave no doubt;
/// nothing where no input embedding is known by name.
pub fn vocab_rows(inventory: &Inventory) -> impl Iterator<Item = (&str, u64)> {
    let embedding = embedding(inventory);
    let heads = inventory
        .tensors
        .iter()
        .filter(move |tensor| embedding.is_some() && is_head_name(&tensor.name));
    embedding
        .into_iter()
        .chain(heads)
        .filter_map(|tensor| Some((tensor.name.as_str(), tensor.layout.shape.first().copied()?)))
}

/// Whether a name is that of an embedding or an output head: a tensor with one row per token.
pub(crate) fn is_vocab_name(name: &str) -> bool {
    EMBEDDINGS.iter().chain(&HEADS).any(|end| ends_with_module(name, end))
}

/// Whether a name leaves no doubt that it is an output head's.
pub(crate) fn is_head_name(name: &str) -> bool {
    PLAIN_HEADS.iter().any(|end| ends_with_module(name, end))
}

/// Whether a name leaves no doubt that it is an output head's matrix.
pub(crate) fn is_head_matrix_name(name: &str) -> bool {
    is_head_name(name) && name.ends_with(".weight")
}

/// Whether a name is that of an input embedding.
pub(crate) fn is_embedding_name(name: &str) -> bool {
    EMBEDDINGS.iter().any(|end| ends_with_module(name, end))
}

/// Whether the last components of a name are those of `end`, wrapper words aside.
fn ends_with_module(name: &str, end: &str) -> bool {
    let mut parts = name.rsplit('.').filter(|part| !is_wrapper(part));
    end.rsplit('.').all(|part| parts.next() == Some(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embeddings_and_heads_are_known_by_whole_module_names() {
        assert!(is_vocab_name("model.embed_tokens.weight"));
        assert!(is_vocab_name("lm_head.weight"));
        assert!(is_vocab_name("transformer.wte.weight"));
        assert!(is_vocab_name("model.embed_tokens._fsdp_wrapped_module.weight"));
        assert!(is_vocab_name("lm_head.module.weight"));
        assert!(!is_vocab_name("embed_tokens.weight.x"));
        assert!(!is_vocab_name("weight"));
        assert!(!is_vocab_name("model.layers.0.my_lm_head.weight"));
        assert!(!is_vocab_name("model.layers.0.mlp.up_proj.weight"));
    }
}

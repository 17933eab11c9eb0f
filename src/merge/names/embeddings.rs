//! Recognises embeddings and output heads by name: the tensors that have one row per token.

use crate::checkpoint::{Inventory, TensorEntry};
use crate::merge::names::wrappers::is_wrapper;

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
const HEADS: [&str; 8] = [
    "lm_head.weight",
    "lm_head.bias",
    "embed_out.weight",
    "embed_out.bias",
    "output.weight",
    "decoder.weight",
    "decoder.bias",
    "predictions.bias",
];

/// Those of [`HEADS`] that name nothing else in any model.
const PLAIN_HEADS: [&str; 4] =
    ["lm_head.weight", "lm_head.bias", "embed_out.weight", "embed_out.bias"];

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
pub(crate) fn ends_with_module(name: &str, end: &str) -> bool {
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

    #[test]
    fn names_tell_heads_their_matrices_and_embeddings_apart() {
        for (name, head, matrix, embedding) in [
            ("lm_head.weight", true, true, false),
            ("model.embed_out.weight", true, true, false),
            ("lm_head.bias", true, false, false),
            ("output.weight", false, false, false),
            ("model.norm.weight", false, false, false),
            ("decoder.embed_tokens.weight", false, false, true),
        ] {
            assert_eq!(is_head_name(name), head, "{name}");
            assert_eq!(is_head_matrix_name(name), matrix, "{name}");
            assert_eq!(is_embedding_name(name), embedding, "{name}");
        }
    }
}

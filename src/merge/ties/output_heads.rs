//! Decides whether the output heads of one checkpoint are its embedding, and which tensors must be
//! read to tell.

use crate::checkpoint::{Checkpoint, TensorEntry};
use crate::merge::names::embeddings::{embedding, is_head_matrix_name};
use crate::merge::ties::same::{Same, vocabulary};

/// `tie_word_embeddings`, where config.json has it.
pub(super) fn says_tied(checkpoint: &Checkpoint) -> Option<bool> {
    checkpoint.config.as_ref().and_then(|config| config.facts().tie_word_embeddings)
}

/// Pairs of positions for [`Checkpoint::compare`]: tensors of one shape with one row per token whose
/// headers don't tell whether they are equal. None where config.json says that they are untied.
pub fn unsure(checkpoint: &Checkpoint) -> Vec<(usize, usize)> {
    let inventory = &checkpoint.inventory;
    if says_tied(checkpoint) == Some(false) {
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

/// Output heads whose values differ from the embedding that config.json ties them to, each with that
/// embedding: programs that follow config.json never read such a head.
pub(crate) fn differing_heads(checkpoint: &Checkpoint) -> Vec<(String, String)> {
    let inventory = &checkpoint.inventory;
    let Some(embedding) = embedding(inventory).filter(|_| says_tied(checkpoint) == Some(true))
    else {
        return Vec::new();
    };
    let same = Same::equal(inventory, false);
    let heads = inventory.tensors.iter().enumerate().filter(|(_, tensor)| is_output_head(tensor));
    let differing = heads.filter(|(head, _)| !same.is_embedding_too(*head, inventory));
    differing.map(|(_, head)| (head.name.clone(), embedding.name.clone())).collect()
}

/// Positions of the input embedding and of a head of its dtype that config.json ties to it, where they
/// are stored apart: for those who read both anyway and can tell whether they are equal.
pub fn stored_apart(checkpoint: &Checkpoint) -> Option<(usize, usize)> {
    if says_tied(checkpoint) != Some(true) {
        return None;
    }
    let inventory = &checkpoint.inventory;
    let embedding = embedding(inventory)?;
    let position = |name: &str| inventory.tensors.iter().position(|tensor| tensor.name == name);
    let head = inventory.tensors.iter().find(|tensor| is_output_head(tensor))?;
    let apart = !inventory.tied(head, embedding) && head.dtype == embedding.dtype;
    apart.then(|| Some((position(&embedding.name)?, position(&head.name)?))).flatten()
}

/// Whether the output head is the input embedding: as the weights are stored, by equal bytes where
/// config.json does not say otherwise, and by config.json where there is no head; a model with a head
/// that its files lack has it tied.
pub(crate) fn is_tied(checkpoint: &Checkpoint) -> Option<bool> {
    let inventory = &checkpoint.inventory;
    embedding(inventory)?;
    let said = says_tied(checkpoint);
    let Some(head) = inventory.tensors.iter().position(is_output_head) else {
        let config = checkpoint.config.as_ref()?.facts();
        let generates = |name: &String| name.ends_with("ForCausalLM") || name.contains("LMHead");
        return said.or(config.architectures.iter().any(generates).then_some(true));
    };
    let same = match said {
        Some(false) => Same::stored(inventory),
        _ => Same::equal(inventory, false),
    };
    Some(same.is_embedding_too(head, inventory))
}

/// Whether a tensor is an output head's matrix.
pub(crate) fn is_output_head(tensor: &TensorEntry) -> bool {
    is_head_matrix_name(&tensor.name) && tensor.layout.shape.len() == 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::headers::{Headers, llama};
    use crate::tensor::DType;

    #[test]
    fn a_head_that_is_tied_by_config_and_stored_twice_is_found() {
        let tied = r#"{"tie_word_embeddings": true}"#;
        let found = |headers: Headers, config: &str| stored_apart(&headers.config(config).open());
        assert_eq!(found(llama(8), tied), Some((0, 20)));
        assert_eq!(found(llama(8), r#"{"tie_word_embeddings": false}"#), None);
        assert_eq!(found(llama(8), "{}"), None);
        assert_eq!(stored_apart(&llama(8).open()), None);
        let embedding = || Headers::new().f16("wte.weight", &[8, 4]);
        assert_eq!(found(embedding(), tied), None);
        assert_eq!(found(embedding().tied("lm_head.weight", "wte.weight"), tied), None);
        assert_eq!(found(embedding().f16("lm_head.bias", &[8]), tied), None);
        // Another dtype can't be compared byte by byte.
        let wide = embedding().tensor("lm_head.weight", DType::Float32, &[8, 4]);
        assert_eq!(found(wide, tied), None);
    }
}

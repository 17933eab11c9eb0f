//! An output head that config.json ties to the embedding and that the files hold as a tensor of its
//! own.

use crate::checkpoint::Checkpoint;
use crate::merge::vocab::{embedding, is_head_name};

/// Positions in the inventory of the input embedding and of a head of its dtype that config.json ties
/// to it (`tie_word_embeddings` written there), where they are stored apart.
pub fn stored_apart(checkpoint: &Checkpoint) -> Option<(usize, usize)> {
    let facts = checkpoint.config.as_ref()?.facts();
    if facts.tie_word_embeddings != Some(true) {
        return None;
    }
    let inventory = &checkpoint.inventory;
    let embedding = embedding(inventory)?;
    let is_other = |name: &str| is_head_name(name) && name.ends_with("weight");
    let position = |name: &str| inventory.tensors.iter().position(|tensor| tensor.name == name);
    let head = inventory.tensors.iter().find(|tensor| is_other(&tensor.name))?;
    let apart = !inventory.tied(head, embedding) && head.dtype == embedding.dtype;
    apart.then(|| Some((position(&embedding.name)?, position(&head.name)?))).flatten()
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

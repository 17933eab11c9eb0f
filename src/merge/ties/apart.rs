//! An output head that config.json ties to the embedding and that the files hold as a tensor of its
//! own: for those who read both anyway and can tell whether they are equal.

use crate::checkpoint::Checkpoint;
use crate::merge::embeddings::embedding;
use crate::merge::ties::{is_head, said};

/// Positions in the inventory of the input embedding and of a head of its dtype that config.json ties
/// to it (`tie_word_embeddings` written there), where they are stored apart.
pub fn stored_apart(checkpoint: &Checkpoint) -> Option<(usize, usize)> {
    if said(checkpoint) != Some(true) {
        return None;
    }
    let inventory = &checkpoint.inventory;
    let embedding = embedding(inventory)?;
    let position = |name: &str| inventory.tensors.iter().position(|tensor| tensor.name == name);
    let head = inventory.tensors.iter().find(|tensor| is_head(tensor))?;
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

//! Counts the rows of both parents' vocabularies and of the child's.

use serde::Serialize;

use crate::checkpoint::{Checkpoint, Inventory};
use crate::merge::names::embeddings::{embedding, is_head_name};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::headers::Headers;
    use crate::tensor::DType;

    #[test]
    fn an_embedding_is_a_floating_matrix_of_that_name_and_the_commonest_name_wins() {
        use crate::tensor::DType::{Float16, Int64};
        let parent = |tensors: &[(&str, DType, &[u64])]| {
            let tensors = tensors.iter();
            tensors.fold(Headers::new(), |h, (name, dtype, shape)| h.tensor(name, *dtype, shape))
        };
        for (tensors, found) in [
            (&[("wte.weight", Float16, &[9, 4][..])][..], Some(9)),
            (&[("wte.weight", Float16, &[9])], None),
            (&[("wte.weight", Float16, &[9, 4, 1])], None),
            (&[("wte.weight", Int64, &[9, 4])], None),
            (&[("wpe.weight", Float16, &[9, 4])], None),
            (
                &[("shared.weight", Float16, &[9, 4]), ("embed_tokens.weight", Float16, &[7, 4])],
                Some(7),
            ),
        ] {
            let parent = parent(tensors).open();
            assert_eq!(
                embedding(&parent.inventory).map(|tensor| tensor.layout.shape[0]),
                found,
                "{tensors:?}"
            );
            assert_eq!(rows(&parent), found, "{tensors:?}");
        }
    }

    #[test]
    fn without_an_embedding_of_a_known_name_the_config_gives_the_rows_of_a_matrix() {
        let config = r#"{"vocab_size": 9}"#;
        for (shape, found) in [
            (&[9, 4][..], Some(9)),
            (&[8, 4], None),
            (&[4, 9], None),
            (&[9], None),
            (&[9, 4, 1], None),
        ] {
            let parent = Headers::new().f16("w", shape);
            assert_eq!(rows(&parent.clone().config(config).open()), found, "{shape:?}");
            assert_eq!(rows(&parent.open()), None);
        }
    }

    #[test]
    fn the_rows_of_a_vocabulary_are_those_of_its_embedding_and_plain_heads() {
        let listed = |names: &[&str]| {
            let parent = names
                .iter()
                .zip(5..)
                .fold(Headers::new(), |h, (name, rows)| h.f16(name, &[rows, 2]));
            let parent = parent.open();
            vocab_rows(&parent.inventory)
                .map(|(name, rows)| (name.to_owned(), rows))
                .collect::<Vec<_>>()
        };
        let of = |name: &str, rows| (name.to_owned(), rows);
        assert_eq!(
            listed(&["lm_head.weight", "wte.weight", "output.weight", "embed_out.bias"]),
            [of("wte.weight", 6), of("lm_head.weight", 5), of("embed_out.bias", 8)]
        );
        assert_eq!(listed(&["lm_head.weight", "w"]), []);
    }
}

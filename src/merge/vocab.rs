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

/// Ends of the names of tensors whose last dimension has one place per token: the bias of BART,
/// Marian and their kin (`[1, vocab]`), and MobileBERT's second half of a head (`[width, vocab]`).
const TOKENS_LAST: [&str; 2] = ["final_logits_bias", "predictions.dense.weight"];

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

/// The dimension that has one place per token in a pair of these shapes, where it is the only one
/// that differs.
///
/// By the sizes alone it is the first one, or one beside which all others are 1. Another one might be
/// a width that has grown like the vocabulary, so it must be known by the tensor's name.
pub(crate) fn shared_axis(name: &str, a: &[u64], b: &[u64], vocab: Vocab) -> Option<usize> {
    if !vocab.differs() || a.len() != b.len() {
        return None;
    }
    let mut differing = a.iter().zip(b).enumerate().filter(|(_, (a, b))| a != b);
    let (axis, (rows_a, rows_b)) = differing.next()?;
    let sizes_fit = (*rows_a, *rows_b) == (vocab.primary, vocab.secondary);
    (sizes_fit && differing.next().is_none() && may_be_tokens(name, a, axis)).then_some(axis)
}

/// The dimension that has one place per token in a tensor that one parent alone has, known by name.
pub(crate) fn own_axis(name: &str, shape: &[u64], rows: u64) -> Option<usize> {
    let axis = match ends_with_any(name, &TOKENS_LAST) {
        true => shape.len().checked_sub(1)?,
        false if is_vocab_name(name) => 0,
        false => return None,
    };
    (shape.get(axis) == Some(&rows)).then_some(axis)
}

fn may_be_tokens(name: &str, shape: &[u64], axis: usize) -> bool {
    let mut others = shape.iter().enumerate().filter(|(place, _)| *place != axis);
    axis == 0
        || others.all(|(_, size)| *size == 1)
        || (axis + 1 == shape.len() && ends_with_any(name, &TOKENS_LAST))
}

fn ends_with_any(name: &str, ends: &[&str]) -> bool {
    ends.iter().any(|end| ends_with_module(name, end))
}

/// Whether the last components of a name are those of `end`, wrapper words aside.
fn ends_with_module(name: &str, end: &str) -> bool {
    let mut parts = name.rsplit('.').filter(|part| !is_wrapper(part));
    end.rsplit('.').all(|part| parts.next() == Some(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Side;
    use crate::merge::headers::Headers;
    use crate::merge::{Edges, Extension, MergeOptions, plan};
    use crate::tensor::DType;

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

    const VOCAB: Vocab = Vocab { primary: 200, secondary: 208 };

    #[test]
    fn the_dimension_of_the_tokens_is_the_only_one_that_differs() {
        let axis = |name: &str, a: &[u64], b: &[u64]| shared_axis(name, a, b, VOCAB);
        assert_eq!(axis("w", &[200, 32], &[208, 32]), Some(0));
        assert_eq!(axis("w", &[200], &[208]), Some(0));
        assert_eq!(axis("final_logits_bias", &[1, 200], &[1, 208]), Some(1));
        assert_eq!(axis("any.bias", &[1, 200], &[1, 208]), Some(1));
        assert_eq!(axis("any.bias", &[1, 200, 1], &[1, 208, 1]), Some(1));
        // A width equal to a vocabulary does not confuse.
        assert_eq!(axis("w", &[200, 208], &[208, 208]), Some(0));
        // The other way round, other sizes, other ranks, two dimensions at once.
        assert_eq!(axis("w", &[208, 32], &[200, 32]), None);
        assert_eq!(axis("w", &[200, 32], &[208, 33]), None);
        assert_eq!(axis("w", &[200, 32], &[207, 32]), None);
        assert_eq!(axis("w", &[200], &[208, 1]), None);
        assert_eq!(axis("final_logits_bias", &[200, 200], &[208, 208]), None);
        assert_eq!(axis("w", &[200, 32], &[200, 32]), None);
        let equal = Vocab { primary: 200, secondary: 200 };
        assert_eq!(shared_axis("w", &[200, 32], &[200, 32], equal), None);
    }

    #[test]
    fn a_wide_tensor_with_its_tokens_last_is_known_by_name_alone() {
        let axis = |name: &str| shared_axis(name, &[96, 200], &[96, 208], VOCAB);
        assert_eq!(axis("cls.predictions.dense.weight"), Some(1));
        assert_eq!(axis("model.layers.0.mlp.down_proj.weight"), None);
        assert_eq!(axis("cls.mypredictions.dense.weight"), None);
        // Tokens are last in it, nowhere else.
        let middle = shared_axis("predictions.dense.weight", &[2, 200, 3], &[2, 208, 3], VOCAB);
        assert_eq!(middle, None);
    }

    #[test]
    fn a_tensor_of_one_parent_has_its_tokens_where_its_name_says() {
        assert_eq!(own_axis("lm_head.weight", &[200, 32], 200), Some(0));
        assert_eq!(own_axis("lm_head.weight", &[200, 200], 200), Some(0));
        assert_eq!(own_axis("lm_head.weight", &[32, 200], 200), None);
        assert_eq!(own_axis("final_logits_bias", &[1, 200], 200), Some(1));
        assert_eq!(own_axis("final_logits_bias", &[200, 1], 200), None);
        assert_eq!(own_axis("final_logits_bias", &[], 200), None);
        assert_eq!(own_axis("model.norm.weight", &[200], 200), None);
    }

    #[test]
    fn a_plan_extends_each_tensor_along_its_own_dimension_and_counts_parameters_alone() {
        let bart = |rows: u64| {
            Headers::new()
                .f16("final_logits_bias", &[1, rows])
                .f16("model.shared.weight", &[rows, 8])
                .tied("lm_head.weight", "model.shared.weight")
                .f16("cls.predictions.dense.weight", &[4, rows])
                .config(r#"{"vocab_size": 1, "eos_token_id": 199}"#)
                .open()
        };
        let (mut short, mut long) = (bart(200), bart(208));
        let planned =
            |a: &Checkpoint, b: &Checkpoint| plan(a, b, &MergeOptions::default()).unwrap();
        for (side, plan) in
            [(Side::Primary, planned(&short, &long)), (Side::Secondary, planned(&long, &short))]
        {
            let found: Vec<_> =
                plan.storages.iter().map(|s| (s.shape.clone(), s.extension)).collect();
            let edges = Edges { last: 198, first: 0, longer_last: 207 };
            let extension =
                |axis| Some(Extension { side, from_rows: 200, to_rows: 208, axis, edges });
            assert_eq!(
                found,
                [
                    (vec![1, 208], extension(1)),
                    (vec![208, 8], extension(0)),
                    (vec![4, 208], extension(1))
                ]
            );
            // The bias is a buffer.
            assert_eq!(plan.total_parameters, 208 * 12);
        }
        // Eight rows of eight and eight columns of four.
        short.total_parameters = Some(1000);
        assert_eq!(planned(&short, &long).total_parameters, 1096);
        // The primary has its rows already.
        long.total_parameters = Some(1000);
        assert_eq!(planned(&long, &short).total_parameters, 1000);
    }

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

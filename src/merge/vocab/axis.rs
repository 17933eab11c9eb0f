//! Finds the dimension of a tensor that has one place per token, along which a vocabulary is
//! extended.

use crate::merge::names::embeddings::{ends_with_module, is_vocab_name};
use crate::merge::vocab::rows::Vocab;

/// Ends of the names of tensors whose last dimension has one place per token: the bias of BART,
/// Marian and their kin (`[1, vocab]`), and MobileBERT's second half of a head (`[width, vocab]`).
const TOKENS_LAST: [&str; 2] = ["final_logits_bias", "predictions.dense.weight"];

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

/// The dimension that has one place per token in a pair whose rows are merged by word: the one that
/// differs, or the one that the name tells where the vocabularies are equally long.
pub(crate) fn word_axis(name: &str, a: &[u64], b: &[u64], vocab: Vocab) -> Option<usize> {
    if vocab.differs() {
        return shared_axis(name, a, b, vocab);
    }
    own_axis(name, a, vocab.primary).filter(|_| a == b)
}

/// Whether a tensor may have one place per token along a dimension that its name does not tell.
pub(crate) fn may_have_tokens(shape: &[u64], rows: u64) -> bool {
    let mut places = shape.iter().enumerate().filter(|(_, size)| **size == rows);
    places.any(|(axis, _)| may_be_tokens("", shape, axis))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Checkpoint, Side};
    use crate::merge::headers::Headers;
    use crate::merge::{Edges, Extension, MergeOptions, plan};

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
}

//! Recognises heads by name: the tensors of one task, beside the body that models of one
//! architecture share.

use crate::merge::names::embeddings::is_head_name;

/// First components of the names of heads, as transformers 4.57.3 and trl have them: language
/// modelling, classification, question answering, rewards; and what else stands beside a body.
const HEADS: [&str; 33] = [
    "lm_head",
    "cls",
    "score",
    "classifier",
    "classification_head",
    "qa_outputs",
    "qa_classifier",
    "embed_out",
    "output",
    "head",
    "heads",
    "predictions",
    "sop_classifier",
    "generator_predictions",
    "generator_lm_head",
    "discriminator_predictions",
    "lm_predictions",
    "mask_predictions",
    "vocab_transform",
    "vocab_layer_norm",
    "vocab_projector",
    "pred_layer",
    "lm_loss",
    "logits_proj",
    "sequence_summary",
    "multiple_choice_head",
    "proj_out",
    "v_head",
    "value_head",
    "reward_head",
    "regression_head",
    "final_logits_bias",
    "n_averaged",
];

/// Whether a name without the body's prefix is that of a head.
pub(crate) fn is_head(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or(name);
    HEADS.contains(&first) || is_head_name(name)
}

#[cfg(test)]
mod tests {
    use super::is_head;

    #[test]
    fn heads_are_known_by_their_first_component() {
        for name in ["lm_head.weight", "cls.predictions.bias", "score.weight", "embed_out.weight"] {
            assert!(is_head(name), "{name}");
        }
        for name in ["h.0.attn.bias", "model.layers.0.cls.weight", "pooler.weight", "decoder.w"] {
            assert!(!is_head(name), "{name}");
        }
    }
}

//! Recognises buffers that are merged like weights, since models compute with them, but are no
//! parameters.

/// The ends of their names.
const MERGED: [&str; 8] = [
    // BART, Marian and their kin.
    "final_logits_bias",
    // DeepSeek-V3, GLM-4 MoE; ERNIE 4.5 has a parameter of that name elsewhere.
    "gate.e_score_correction_bias",
    // Apertus.
    "act_fn.beta",
    "act_fn.eps",
    // MiniMax.
    "slope_rate",
    "query_decay",
    "key_decay",
    "diagonal_decay",
];

/// Whether a tensor of this name is merged and yet not counted in the index's `total_parameters`.
pub(crate) fn is_merged_buffer(name: &str) -> bool {
    MERGED.iter().any(|end| {
        name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_of_a_name_tell() {
        assert!(is_merged_buffer("final_logits_bias"));
        assert!(!is_merged_buffer("my_final_logits_bias"));
        assert!(is_merged_buffer("model.layers.0.mlp.gate.e_score_correction_bias"));
        assert!(!is_merged_buffer("model.layers.0.mlp.moe_statics.e_score_correction_bias"));
        assert!(is_merged_buffer("model.layers.0.mlp.act_fn.beta"));
        assert!(!is_merged_buffer("bert.embeddings.LayerNorm.beta"));
    }
}

//! Recognises buffers, tensors that are no parameters, by name: some programs leave them out of an
//! index.

/// Last components of the names of buffers that transformers' models keep in their state dict.
const BUFFERS: [&str; 9] = [
    "inv_freq",
    "masked_bias",
    "position_ids",
    "token_type_ids",
    "running_mean",
    "running_var",
    "num_batches_tracked",
    "cos_cached",
    "sin_cached",
];

/// Whether a tensor is a buffer, by its name and rank. What a merge does with buffers is decided
/// more strictly, by dtype and shape too, in `merge/names/buffers.rs`.
pub(crate) fn is_buffer(name: &str, shape: &[u64]) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    // The causal masks of GPT-2 and GPT-NeoX are called `attn.bias`; a real bias has rank 1.
    BUFFERS.contains(&last) || (last == "bias" && shape.len() == 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_told_from_biases_by_their_rank() {
        assert!(is_buffer("h.0.attn.bias", &[1, 1, 32, 32]));
        assert!(!is_buffer("h.0.attn.c_attn.bias", &[96]));
        assert!(is_buffer("embeddings.position_ids", &[1, 32]));
        assert!(!is_buffer("layers.0.weight", &[8, 8]));
    }
}

//! Recognises non-parameter tensors (masks, position ids, rotary tables, counters, batch norm
//! statistics) by name, dtype and shape.

use serde::Serialize;

use crate::merge::names::merged_buffers::is_merged_buffer;
use crate::tensor::DType;

/// What a known buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KnownBuffer {
    /// What may be attended to: ones and zeros, or the score of what may not.
    Mask,
    /// Positions, segments and indices into tables: 0, 1, 2, …
    Positions,
    /// Frequencies of rotary embeddings, their cosines and sines.
    Frequencies,
    /// How often something was done.
    Counter,
    /// Mean and variance of a batch norm: learned from data, and merged like weights.
    Statistics,
}

impl KnownBuffer {
    /// Which buffer a tensor is, if any. Names and shapes are those that transformers up to 4.57.3
    /// and the models' first releases register.
    pub fn of(name: &str, dtype: DType, shape: &[u64]) -> Option<KnownBuffer> {
        let last = name.rsplit('.').next().unwrap_or(name);
        let numel = crate::tensor::numel(shape);
        let square = matches!(shape, [.., rows, columns] if rows == columns);
        let lone = |sizes: &[u64]| sizes.iter().all(|size| *size == 1);
        let table = square && lone(shape.get(..shape.len() - 2).unwrap_or_default());
        let integral = dtype.is_integral();
        match last {
            // The causal masks of GPT-2 and GPT-NeoX are called `attn.bias`; a real bias has rank 1.
            "bias" if table && shape.len() == 4 => Some(KnownBuffer::Mask),
            "masked_bias" if numel == Some(1) => Some(KnownBuffer::Mask),
            "causal_mask" | "future_mask" | "mask" if table => Some(KnownBuffer::Mask),
            "attn_mask" if square => Some(KnownBuffer::Mask),
            "position_ids"
            | "token_type_ids"
            | "relative_position_index"
            | "attention_bias_idxs"
                if integral =>
            {
                Some(KnownBuffer::Positions)
            }
            "inv_freq" if dtype.is_floating() && shape.len() == 1 => Some(KnownBuffer::Frequencies),
            "freqs" if name.ends_with("rope.freqs") && shape.len() == 1 => {
                Some(KnownBuffer::Frequencies)
            }
            "cos_cached" | "sin_cached" if dtype.is_floating() && shape.len() >= 2 => {
                Some(KnownBuffer::Frequencies)
            }
            "num_batches_tracked" if integral => Some(KnownBuffer::Counter),
            "_float_tensor" if numel == Some(1) => Some(KnownBuffer::Counter),
            "running_mean" | "running_var" if shape.len() == 1 => Some(KnownBuffer::Statistics),
            _ => None,
        }
    }

    /// Whether the child has the primary's, whatever the secondary's is.
    pub(crate) fn is_copied(self) -> bool {
        self != KnownBuffer::Statistics
    }

    /// Whether NaN and Inf in it are no fault.
    pub fn may_be_nonfinite(self) -> bool {
        self == KnownBuffer::Mask
    }
}

/// Buffers are no parameters, so they don't count as such.
pub(crate) fn is_buffer(name: &str, dtype: DType, shape: &[u64]) -> bool {
    KnownBuffer::of(name, dtype, shape).is_some()
}

/// Whether a floating tensor counts among a model's parameters.
pub(crate) fn is_parameter(name: &str, dtype: DType, shape: &[u64]) -> bool {
    !is_buffer(name, dtype, shape) && !is_merged_buffer(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_known_by_name_and_kind() {
        use DType::{Bool, Float16, Float32, Int64, UInt8};
        use KnownBuffer::{Counter, Frequencies, Mask, Positions, Statistics};
        let table: [(&str, DType, &[u64], Option<KnownBuffer>); 40] = [
            ("h.0.attn.bias", UInt8, &[1, 1, 32, 32], Some(Mask)),
            ("h.0.attn.bias", Bool, &[1, 1, 64, 64], Some(Mask)),
            ("h.0.attn.bias", Float32, &[1, 1, 4, 4], Some(Mask)),
            ("h.0.attn.bias", Float16, &[64], None),
            ("conv.bias", Float16, &[1, 8, 1, 1], None),
            ("conv.bias", Float16, &[2, 1, 4, 4], None),
            ("conv.bias", Float16, &[4, 4], None),
            ("h.0.attn.masked_bias", Float16, &[], Some(Mask)),
            ("h.0.attn.masked_bias", Float32, &[1], Some(Mask)),
            ("h.0.attn.masked_bias", Float32, &[2], None),
            ("attn.causal_mask", Bool, &[1, 1, 8, 8], Some(Mask)),
            ("model.future_mask", Float16, &[8, 8], Some(Mask)),
            ("x.mask", Float16, &[8, 4], None),
            ("x.mask", Float16, &[2, 4, 4], None),
            ("x.mask", Float16, &[8], None),
            ("layers.0.blocks.1.attn_mask", Float32, &[4, 49, 49], Some(Mask)),
            ("layers.0.blocks.1.attn_mask", Float32, &[4, 49, 48], None),
            ("embeddings.position_ids", Int64, &[1, 32], Some(Positions)),
            ("embeddings.token_type_ids", Int64, &[1, 32], Some(Positions)),
            ("attn.attention_bias_idxs", Int64, &[49, 49], Some(Positions)),
            ("embeddings.position_ids", Float32, &[1, 32], None),
            ("attn.relative_position_index", Int64, &[49, 49], Some(Positions)),
            ("rotary_emb.inv_freq", Float32, &[8], Some(Frequencies)),
            ("rotary_emb.inv_freq", Float32, &[8, 2], None),
            ("rotary_emb.inv_freq", Int64, &[8], None),
            ("rope.freqs", Float32, &[8], Some(Frequencies)),
            ("rope.freqs", Float32, &[8, 2], None),
            ("freqs", Float32, &[8], None),
            ("rotary_emb.cos_cached", Float16, &[1, 1, 8, 4], Some(Frequencies)),
            ("rotary_emb.sin_cached", Float16, &[8, 4], Some(Frequencies)),
            ("rotary_emb.sin_cached", Float16, &[8], None),
            ("rotary_emb.sin_cached", Int64, &[8, 4], None),
            ("bn.num_batches_tracked", Int64, &[], Some(Counter)),
            ("bn.num_batches_tracked", Float32, &[], None),
            ("positions._float_tensor", Float32, &[1], Some(Counter)),
            ("positions._float_tensor", Float32, &[2], None),
            ("bn.running_mean", Float32, &[8], Some(Statistics)),
            ("bn.running_var", Float32, &[8], Some(Statistics)),
            ("bn.running_var", Float32, &[8, 2], None),
            ("model.norm.weight", Float16, &[8], None),
        ];
        for (name, dtype, shape, expected) in table {
            assert_eq!(KnownBuffer::of(name, dtype, shape), expected, "{name} {dtype} {shape:?}");
        }
    }

    #[test]
    fn statistics_are_merged_and_only_masks_may_hold_inf() {
        use KnownBuffer::{Counter, Frequencies, Mask, Positions, Statistics};
        let all = [Mask, Positions, Frequencies, Counter, Statistics];
        assert_eq!(all.map(KnownBuffer::is_copied), [true, true, true, true, false]);
        assert_eq!(all.map(KnownBuffer::may_be_nonfinite), [true, false, false, false, false]);
    }
}

//! Checkpoints that no merge can use, whatever the other parent is.

use crate::checkpoint::{Checkpoint, TensorEntry};
use crate::error::{Error, Kind, Result};
use crate::tensor::{DType, counted};

/// Ends of the names of packed weights and what belongs to them (GPTQ, AWQ, bitsandbytes, HQQ).
const PACKED: [&str; 7] =
    [".qweight", ".qzeros", ".g_idx", ".SCB", ".absmax", ".quant_map", ".weight_packed"];

/// Refuses parts of models, adapters and quantised weights: interpolated element by element, they
/// mean nothing.
///
/// # Errors
/// [`Kind::Data`] with what was found and what to do.
pub fn check_parent(checkpoint: &Checkpoint) -> Result<()> {
    if let Some(part) = &checkpoint.part {
        return Err(part.refusal(&checkpoint.path));
    }
    let tensors = &checkpoint.inventory.tensors;
    let refused = |what: &str, tensor: &TensorEntry, expected: &str, found: String, hint: &str| {
        let error = Error::new(Kind::Data, what).file(&checkpoint.path).tensor(&tensor.name);
        Err(error.expected(expected, found).with_hint(hint))
    };
    let low_rank = |tensor: &&TensorEntry| tensor.name.contains(".lora_");
    if let Some(tensor) = tensors.iter().find(low_rank) {
        return refused(
            "this is a LoRA adapter, not a model",
            tensor,
            "whole weights",
            format!(
                "low-rank factors in {} of {}",
                tensors.iter().filter(low_rank).count(),
                counted(tensors.len() as u64, "tensor")
            ),
            "merge it into its base model first (PEFT: `merge_and_unload()`, then \
             `save_pretrained(DIR, safe_serialization=False)`)",
        );
    }
    let config = checkpoint.config.as_ref().map(|config| config.facts());
    let method = config.and_then(|facts| facts.quantization.as_deref());
    let packed = |tensor: &&TensorEntry| {
        let by_name = PACKED.iter().any(|end| tensor.name.ends_with(end));
        by_name || (method.is_some() && is_narrow(tensor.dtype) && tensor.layout.shape.len() >= 2)
    };
    if let Some(tensor) = tensors.iter().find(packed) {
        return refused(
            "quantised weights can't be merged",
            tensor,
            "floating weights of 16 bits or more",
            match method {
                Some(method) => format!("{}, quantised ({method})", tensor.dtype),
                None => tensor.dtype.to_string(),
            },
            "take the model that was quantised, or dequantise it (transformers: `dequantize()`) and \
             save it again",
        );
    }
    Ok(())
}

/// Whether quantised weights are kept in this dtype. Masks and positions have the other two.
fn is_narrow(dtype: DType) -> bool {
    let counts = matches!(dtype, DType::Bool | DType::Int64);
    !counts && (dtype.size_bytes() == 1 || dtype.is_integral())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Parts;
    use crate::merge::headers::llama;

    #[test]
    fn a_part_of_a_model_is_refused_whatever_it_holds() {
        let mut parent = llama(64).open();
        assert!(check_parent(&parent).is_ok());
        parent.part = Parts::among(["consolidated.01.pth"].into_iter());
        let error = check_parent(&parent).unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        assert!(error.to_string().starts_with("this is a part of a model, not a model: parent"));
    }
}

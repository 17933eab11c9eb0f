//! Refuses quantised weights, declared or not: codes that mean nothing without their scales.

use std::collections::HashMap;

use crate::checkpoint::{Checkpoint, TensorEntry};
use crate::error::{Error, Kind};
use crate::merge::names::buffers::is_buffer;
use crate::tensor::DType;

/// The hint of every refusal.
const HINT: &str = "take the model that was quantised, or dequantise it (transformers: \
                    `dequantize()`) and save it again";

/// Last name components that only quantised weights and what belongs to them have, with the scheme.
const PACKED: [(&str, &str); 12] = [
    ("g_idx", "GPTQ"),
    ("qweight", "GPTQ or AWQ"),
    ("qzeros", "GPTQ or AWQ"),
    ("SCB", "bitsandbytes, 8 bits"),
    ("absmax", "bitsandbytes, 4 bits"),
    ("nested_absmax", "bitsandbytes, 4 bits"),
    ("quant_map", "bitsandbytes, 4 bits"),
    ("bitsandbytes__nf4", "bitsandbytes, 4 bits"),
    ("bitsandbytes__fp4", "bitsandbytes, 4 bits"),
    ("weight_packed", "compressed-tensors"),
    ("Qidxs", "QuIP#"),
    ("scaled_fp8", "FP8 with scales"),
];

/// The same for names that floating weights may have too: they count for codes only.
const PACKED_INTEGERS: [(&str, &str); 2] = [("W_q", "HQQ"), ("nf4", "bitsandbytes, 4 bits")];

/// Words, in lower case, in the last name component of what accompanies codes: scales and the like.
const COMPANIONS: [&str; 11] = [
    "scale",
    "scb",
    "absmax",
    "zero",
    "codes",
    "codebook",
    "qidxs",
    "quant_state",
    "quant_map",
    "centroid",
    "lookup_table",
];

/// Whole last components: QuIP#'s signs, HQQ's and compressed-tensors' metadata, Marlin's scales.
const WHOLE_COMPANIONS: [&str; 5] = ["su", "sv", "meta", "weight_shape", "s"];

/// Refuses quantised weights: those that config.json declares, those known by name, and integers or
/// one-byte floats that have scales beside them.
pub(crate) fn refusal(checkpoint: &Checkpoint) -> Option<Error> {
    let config = checkpoint.config.as_ref().map(|config| config.facts());
    let method = config.and_then(|facts| facts.quantization.as_deref());
    let tensors = &checkpoint.inventory.tensors;
    let (tensor, found) = if let Some((tensor, companion)) = accompanied(tensors) {
        let scheme = scheme(tensor, companion);
        (
            tensor,
            format!(
                "{} beside `{}` ({})",
                tensor.dtype,
                last(&companion.name),
                method.unwrap_or(scheme)
            ),
        )
    } else {
        let declared = |tensor: &&TensorEntry| method.is_some() && holds_codes(tensor);
        let declared = || tensors.iter().find(declared).map(|tensor| (tensor, ""));
        let (tensor, scheme) = tensors.iter().find_map(packed).or_else(declared)?;
        (tensor, format!("{}, quantised ({})", tensor.dtype, method.unwrap_or(scheme)))
    };
    Some(
        Error::new(Kind::Data, "quantised weights can't be merged")
            .file(&checkpoint.path)
            .tensor(&tensor.name)
            .expected("floating weights of 16 bits or more", found)
            .with_hint(HINT),
    )
}

/// A tensor whose name says that it is part of a quantised weight, and the scheme.
fn packed(tensor: &TensorEntry) -> Option<(&TensorEntry, &'static str)> {
    let last = last(&tensor.name);
    let integers = PACKED_INTEGERS.iter().filter(|_| holds_codes(tensor));
    let mut known = PACKED.iter().chain(integers);
    known.find(|(name, _)| *name == last).map(|(_, scheme)| (tensor, *scheme))
}

/// Whether a tensor may hold codes: a matrix of integers or of one-byte floats that is no buffer.
fn holds_codes(tensor: &TensorEntry) -> bool {
    let shape = &tensor.layout.shape;
    let counts = matches!(tensor.dtype, DType::Bool | DType::Int64);
    let narrow = !counts && (tensor.dtype.size_bytes() == 1 || tensor.dtype.is_integral());
    narrow && shape.len() >= 2 && !is_buffer(&tensor.name, tensor.dtype, shape)
}

/// The first tensor of codes that has a companion, and the companion.
fn accompanied(tensors: &[TensorEntry]) -> Option<(&TensorEntry, &TensorEntry)> {
    if !tensors.iter().any(holds_codes) {
        return None;
    }
    let mut companions: HashMap<&str, Vec<&TensorEntry>> = HashMap::new();
    for tensor in tensors.iter().filter(|tensor| is_companion(&tensor.name)) {
        companions.entry(module(&tensor.name)).or_default().push(tensor);
    }
    tensors.iter().filter(|tensor| holds_codes(tensor)).find_map(|codes| {
        // In the same module, below the weight's own name, or in the module that quantised it.
        let quantiser = format!("{}_quantizer", codes.name);
        let places = [module(&codes.name), &codes.name, &quantiser];
        let beside = places.iter().filter_map(|place| companions.get(place)).flatten();
        let companion = beside.copied().find(|companion| companion.name != codes.name)?;
        Some((codes, companion))
    })
}

/// Whether a name is that of scales or the like. CLIP's and Swin's logit_scale is a parameter.
fn is_companion(name: &str) -> bool {
    let last = last(name).to_ascii_lowercase();
    let contains = |part: &&str| last != "logit_scale" && last.contains(*part);
    COMPANIONS.iter().any(contains) || WHOLE_COMPANIONS.contains(&last.as_str())
}

/// The scheme that codes and their companion look like.
fn scheme(codes: &TensorEntry, companion: &TensorEntry) -> &'static str {
    if let Some((_, scheme)) = packed(codes).or_else(|| packed(companion)) {
        return scheme;
    }
    let (own, companion) = (last(&codes.name), last(&companion.name));
    match codes.dtype {
        dtype if dtype.is_floating() => "FP8 with scales",
        DType::UInt8 if own.ends_with("_blocks") && companion.ends_with("_scales") => "MXFP4",
        DType::UInt8 if companion.starts_with("weight_scale") => "BitNet or NVFP4",
        DType::Int8 if companion == "weight_scales" => "EETQ",
        _ if own == "codes" || companion == "codes" => "AQLM",
        _ if own == "_data" => "Quanto",
        DType::Int8 => "8-bit integers with scales",
        _ => "packed integers with scales",
    }
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn module(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(module, _)| module)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::headers::{Headers, llama};

    fn found(headers: Headers) -> Option<String> {
        refusal(&headers.open()).map(|error| error.to_string())
    }

    fn beside(own: &str, dtype: DType, partner: &str) -> Headers {
        let headers = llama(8).tensor(&format!("m.0.{own}"), dtype, &[4, 4]);
        headers.f16(&format!("m.0.{partner}"), &[4])
    }

    #[test]
    fn codes_beside_their_scales_are_refused_by_name_of_the_scheme() {
        use DType::{Float8E4M3Fn, Int8, Int16, Int32, Int64, UInt8};
        for (own, dtype, partner, scheme) in [
            ("weight", Float8E4M3Fn, "weight_scale", "FP8 with scales"),
            ("weight", Float8E4M3Fn, "weight_scale_inv", "FP8 with scales"),
            ("weight", Float8E4M3Fn, "scale_weight", "FP8 with scales"),
            ("weight", Float8E4M3Fn, "input_scale", "FP8 with scales"),
            ("weight", Int8, "SCB", "bitsandbytes, 8 bits"),
            ("weight", UInt8, "weight.absmax", "bitsandbytes, 4 bits"),
            ("weight", UInt8, "weight.quant_state.bitsandbytes__nf4", "bitsandbytes, 4 bits"),
            ("qweight", Int32, "scales", "GPTQ or AWQ"),
            ("weight", Int32, "g_idx", "GPTQ"),
            ("weight_packed", Int32, "weight_shape", "compressed-tensors"),
            ("Qidxs", Int64, "SU", "QuIP#"),
            ("codes", Int16, "codebooks", "AQLM"),
            ("W_q", UInt8, "meta", "HQQ"),
            ("gate_up_proj_blocks", UInt8, "gate_up_proj_scales", "MXFP4"),
            ("weight", UInt8, "weight_scale", "BitNet or NVFP4"),
            ("weight", Int8, "weight_scales", "EETQ"),
            ("weight._data", Int8, "weight._scale", "Quanto"),
            ("weight", Int8, "weight_quantizer._scale", "8-bit integers with scales"),
            ("B", Int32, "s", "packed integers with scales"),
            ("weight", UInt8, "qzeros", "GPTQ or AWQ"),
            ("weight", UInt8, "weight_scales", "BitNet or NVFP4"),
            ("w_blocks", UInt8, "scales", "packed integers with scales"),
            ("B", UInt8, "scales", "packed integers with scales"),
            ("B", Int16, "codes", "AQLM"),
        ] {
            let found = found(beside(own, dtype, partner)).expect(partner);
            assert!(found.starts_with("quantised weights can't be merged"), "{found}");
            assert!(found.contains(scheme), "{own} {partner}: {found}");
        }
    }

    #[test]
    fn what_is_no_code_is_let_through() {
        use DType::{Bool, Float8E4M3Fn, Int8, Int64, UInt8};
        for (own, dtype, partner) in [
            // Plain casts to one byte are values.
            ("weight", Float8E4M3Fn, "bias"),
            ("weight", Float8E4M3Fn, "logit_scale"),
            // Swin's indices beside its scale, masks, a head of scales alone.
            ("relative_position_index", Int64, "logit_scale"),
            ("mask", Bool, "scale"),
            ("counts", Int8, "weight"),
            ("token_type_ids", UInt8, "scale"),
        ] {
            assert_eq!(found(beside(own, dtype, partner)), None, "{own} {partner}");
        }
        for name in ["attn.W_q", "attn.k_scale", "quantizer.codebooks", "attn.nf4"] {
            assert_eq!(found(llama(8).f16(name, &[4, 4])), None, "{name}");
        }
        // Scales elsewhere, a scale of its own name, codes of one dimension.
        let apart = llama(8).tensor("a.weight", DType::Int8, &[4, 4]).f16("b.scale", &[4]);
        assert_eq!(found(apart), None);
        let alone = llama(8).tensor("a.scale", DType::Int8, &[4, 4]);
        assert_eq!(found(alone), None);
        let observer = llama(8).tensor("a.zero_point", DType::Int32, &[4]).f16("a.scale", &[4]);
        assert_eq!(found(observer), None);
    }

    #[test]
    fn a_config_decides_for_tensors_that_no_name_gives_away() {
        let config = r#"{"quantization_config": {"quant_method": "fp8"}}"#;
        let plain = || llama(8).tensor("m.weight", DType::Float8E4M3Fn, &[4, 4]);
        assert_eq!(found(plain()), None);
        let found_by_config = found(plain().config(config)).expect("refused");
        assert!(found_by_config.contains("float8_e4m3fn, quantised (fp8)"), "{found_by_config}");
        assert_eq!(found(llama(8).config(config)), None);
    }
}

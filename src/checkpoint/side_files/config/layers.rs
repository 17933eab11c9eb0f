//! The config of a model of which some layers are left: its depth, and its lists with an entry for
//! each layer. Every other byte stays.

use std::ops::Range;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::checkpoint::side_files::config::fields::{Fields, span_in};
use crate::checkpoint::side_files::config::splice::Splice;
use crate::error::{Error, Kind, Result};
use crate::format::json::mask_python_literals;
use crate::tensor::escape;

/// Keys of the number of layers.
const DEPTH_KEYS: [&str; 5] =
    ["num_hidden_layers", "n_layer", "num_layers", "n_layers", "num_layer"];

/// Keys of lists that name layers by their numbers.
const NUMBER_LISTS: [&str; 4] =
    ["mlp_only_layers", "cross_attention_layers", "attn_layer_indices", "full_attention_layers"];

/// Keys that say which layers are of a kind by counting them, and the value that says nothing.
const COUNTED: [(&str, u64); 14] = [
    ("first_k_dense_replace", 0),
    ("decoder_sparse_step", 1),
    ("moe_layer_freq", 1),
    ("moe_layer_interval", 1),
    ("interleave_moe_layer_step", 1),
    ("attn_layer_period", 1),
    ("attn_layer_offset", 0),
    ("expert_layer_period", 1),
    ("expert_layer_offset", 0),
    ("num_kv_shared_layers", 0),
    ("cross_attn_every_n_layers", 0),
    ("global_attn_every_n_layers", 1),
    ("sliding_window_pattern", 1),
    ("full_attention_interval", 1),
];

/// Of those, the ones that a list of the layers' types stands above.
const BELOW_LAYER_TYPES: [&str; 2] = ["sliding_window_pattern", "full_attention_interval"];

/// The text for a model whose layer i is layer `picks[i]` of one of `depth` layers.
///
/// # Errors
/// [`Kind::Data`] where `text` is no JSON object, or counts layers in a way that does not hold for the
/// child, unless `force` is given.
pub(super) fn with_layers(text: &str, depth: u64, picks: &[u64], force: bool) -> Result<String> {
    let masked = mask_python_literals(text);
    let top = Fields::parse(&masked)?;
    let mut splice = Splice::new(text);
    for fields in top.language_models() {
        if !force {
            check_counts(&fields, picks)?;
        }
        for (key, value) in &fields.0 {
            let Some(new) = replaced(key, value, depth, picks) else { continue };
            // From the original: masked literals have other bytes.
            if let Some(span) = span_in(&masked, value.get()) {
                splice.replace(span, new);
            }
        }
    }
    Ok(splice.finish())
}

/// The new text of a value; `None` where it stays.
fn replaced(key: &str, value: &RawValue, depth: u64, picks: &[u64]) -> Option<String> {
    if DEPTH_KEYS.contains(&key) {
        return (value.get().parse() == Ok(depth)).then(|| picks.len().to_string());
    }
    if !value.get().starts_with('[') {
        return None;
    }
    let entries: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
    if NUMBER_LISTS.contains(&key) {
        let numbers: Option<Vec<u64>> =
            entries.iter().map(|entry| entry.get().parse().ok()).collect();
        let numbers = numbers?;
        let left = picks.iter().enumerate().filter(|(_, pick)| numbers.contains(pick));
        let left: Vec<String> = left.map(|(number, _)| number.to_string()).collect();
        return Some(list(value.get(), &entries, &left));
    }
    let of_layers = key.contains("layer") || key.contains("block") || key.ends_with("_pattern");
    if !of_layers || entries.len() as u64 != depth {
        return None;
    }
    let place = |pick: &u64| usize::try_from(*pick).ok();
    let left: Option<Vec<String>> =
        picks.iter().map(|pick| Some(entries.get(place(pick)?)?.get().to_owned())).collect();
    Some(list(value.get(), &entries, &left?))
}

/// A list of other entries, spaced as the old one.
fn list(old: &str, entries: &[&RawValue], new: &[String]) -> String {
    let spans: Vec<Range<usize>> =
        entries.iter().filter_map(|entry| span_in(old, entry.get())).collect();
    let (Some(first), Some(last)) = (spans.first(), spans.last()) else {
        return format!("[{}]", new.join(", "));
    };
    if new.is_empty() {
        return "[]".to_owned();
    }
    let between = spans.get(1).map_or(", ", |second| &old[first.end..second.start]);
    format!("{}{}{}", &old[..first.start], new.join(between), &old[last.end..])
}

/// Counting from the first layer holds where the child has the first layers, in their order.
fn check_counts(fields: &Fields<'_>, picks: &[u64]) -> Result<()> {
    if picks.iter().enumerate().all(|(number, pick)| number as u64 == *pick) {
        return Ok(());
    }
    let has_types = fields.get::<Vec<Value>>("layer_types").is_some();
    for (key, nothing) in COUNTED {
        let value: Option<u64> = fields.get(key);
        let said = value.is_some_and(|value| value != nothing && value != 0);
        if said && !(has_types && BELOW_LAYER_TYPES.contains(&key)) {
            let found = format!("`{}`: {}", escape(key), value.unwrap_or_default());
            return Err(Error::new(Kind::Data, "the config counts layers from the first one")
                .expected("slices that begin with the first layers, in their order", found)
                .with_hint("--force-config cuts all the same: then correct the child's config.json by hand"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str, depth: u64, picks: &[u64]) -> String {
        with_layers(text, depth, picks, false).unwrap()
    }

    #[test]
    fn depth_and_lists_of_layers_are_the_childs_and_every_other_byte_stays() {
        let text = "{\n  \"num_hidden_layers\": 4,\n  \"architectures\": [\"A\", \"B\", \"C\", \"D\"],\n  \
            \"layer_types\": [\n    \"full\",\n    \"sliding\",\n    \"full\",\n    \"other\"\n  ],\n  \
            \"mlp_only_layers\": [0, 3],\n  \"no_rope_layers\": [1,1,1,0],\n  \"nan\": NaN\n}\n";
        let expected = "{\n  \"num_hidden_layers\": 3,\n  \"architectures\": [\"A\", \"B\", \"C\", \"D\"],\n  \
            \"layer_types\": [\n    \"full\",\n    \"other\",\n    \"other\"\n  ],\n  \
            \"mlp_only_layers\": [1, 2],\n  \"no_rope_layers\": [1,0,0],\n  \"nan\": NaN\n}\n";
        assert_eq!(cut(text, 4, &[2, 3, 3]), expected);
    }

    #[test]
    fn the_language_models_part_is_cut_and_other_depths_stay() {
        let text = r#"{"text_config": {"n_layer": 2, "layer_types": ["a", "b"]},
            "vision_config": {"num_hidden_layers": 2}, "num_layers": 7}"#;
        let expected = r#"{"text_config": {"n_layer": 1, "layer_types": ["b"]},
            "vision_config": {"num_hidden_layers": 2}, "num_layers": 7}"#;
        assert_eq!(cut(text, 2, &[1]), expected);
        assert_eq!(
            cut(r#"{"mlp_only_layers": [0], "n_layer": 2}"#, 2, &[1]),
            r#"{"mlp_only_layers": [], "n_layer": 1}"#
        );
    }

    #[test]
    fn what_counts_layers_holds_for_the_first_ones_alone() {
        let text = r#"{"n_layer": 6, "sliding_window_pattern": 3}"#;
        assert!(with_layers(text, 6, &[0, 1, 2, 3], false).is_ok());
        for picks in [&[1, 2, 3][..], &[0, 2], &[0, 0]] {
            let error = with_layers(text, 6, picks, false).unwrap_err();
            assert!(error.to_string().contains("sliding_window_pattern"), "{error}");
            assert!(with_layers(text, 6, picks, true).is_ok());
        }
        // Types of layers stand above the pattern, and 0 and 1 say nothing.
        let types = r#"{"n_layer": 2, "layer_types": ["a", "b"], "sliding_window_pattern": 3,
            "decoder_sparse_step": 1, "first_k_dense_replace": 0}"#;
        assert!(with_layers(types, 2, &[1], false).is_ok());
    }
}

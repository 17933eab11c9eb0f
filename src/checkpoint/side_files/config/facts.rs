//! Reads the values of a config that a merge needs, except those that it compares with the other
//! parent's.

use crate::checkpoint::side_files::config::fields::Fields;
use crate::error::Result;
use crate::format::json::mask_python_literals;

/// Facts of a config. Those of the language model are taken from the top level or, where the top
/// level has none, from the part for it (`text_config`, `llm_config`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFacts {
    /// `model_type`, of the top level.
    pub model_type: Option<String>,
    /// `architectures`, of the top level.
    pub architectures: Vec<String>,
    /// `vocab_size`, in rows.
    pub vocab_size: Option<u64>,
    /// `tie_word_embeddings`, where it is there; the innermost counts, since transformers asks the
    /// language model's config.
    pub tie_word_embeddings: Option<bool>,
    /// `dtype` or `torch_dtype`, torch's name without `torch.`.
    pub dtype: Option<String>,
    /// `quant_method` of `quantization_config`, where the weights are quantised.
    pub quantization: Option<String>,
    /// Whether the model runs code from its directory (`auto_map`).
    pub needs_custom_code: bool,
}

impl ConfigFacts {
    /// Facts of a config's text.
    ///
    /// # Errors
    /// [`Kind::Data`](crate::error::Kind::Data) where it is not a JSON object.
    pub fn of(text: &str) -> Result<ConfigFacts> {
        let masked = mask_python_literals(text);
        let top = Fields::parse(&masked)?;
        let mut facts = ConfigFacts {
            model_type: top.get("model_type"),
            architectures: top.get("architectures").unwrap_or_default(),
            quantization: quantization(&top),
            needs_custom_code: top.raw("auto_map").is_some_and(|value| value != "null"),
            ..ConfigFacts::default()
        };
        for fields in top.language_models() {
            facts.vocab_size = facts.vocab_size.or_else(|| fields.get("vocab_size"));
            facts.tie_word_embeddings =
                fields.get("tie_word_embeddings").or(facts.tie_word_embeddings);
            let dtype = || fields.get("dtype").or_else(|| fields.get("torch_dtype"));
            facts.dtype = facts.dtype.or_else(dtype);
        }
        facts.dtype = facts.dtype.map(|name| name.trim_start_matches("torch.").to_owned());
        Ok(facts)
    }
}

fn quantization(fields: &Fields<'_>) -> Option<String> {
    let config: Option<Fields<'_>> = fields.get("quantization_config");
    Some(config?.get("quant_method").unwrap_or_else(|| "by an unnamed method".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::side_files::config::tests::LLAMA;

    #[test]
    fn facts_are_read_also_beside_pythons_literals() {
        let facts = ConfigFacts::of(LLAMA).expect("a config");
        let expected = ConfigFacts {
            model_type: Some("llama".into()),
            architectures: vec!["LlamaForCausalLM".into()],
            vocab_size: Some(32000),
            tie_word_embeddings: Some(false),
            dtype: Some("float16".into()),
            quantization: None,
            needs_custom_code: false,
        };
        assert_eq!(facts, expected);
    }

    #[test]
    fn facts_of_the_language_model_are_found_in_text_config() {
        let text = r#"{"auto_map": {"AutoModel": "m.M"}, "text_config": {"vocab_size": 9,
            "dtype": "torch.bfloat16", "model_type": "inner"}, "vocab_size": null}"#;
        let facts = ConfigFacts::of(text).expect("a config");
        assert_eq!(facts.vocab_size, Some(9));
        assert_eq!(facts.dtype.as_deref(), Some("bfloat16"));
        assert_eq!(facts.model_type, None);
        assert!(facts.needs_custom_code);
    }

    #[test]
    fn quantised_weights_are_known_by_their_method() {
        let method = |text: &str| ConfigFacts::of(text).expect("a config").quantization;
        let gptq = r#"{"quantization_config": {"bits": 4, "quant_method": "gptq"}}"#;
        assert_eq!(method(gptq).as_deref(), Some("gptq"));
        let unnamed = method(r#"{"quantization_config": {}}"#);
        assert_eq!(unnamed.as_deref(), Some("by an unnamed method"));
        assert_eq!(method(r#"{"quantization_config": null}"#), None);
    }

    #[test]
    fn the_innermost_word_on_tied_heads_counts() {
        let tied = |text: &str| ConfigFacts::of(text).expect("a config").tie_word_embeddings;
        let inner =
            r#"{"tie_word_embeddings": false, "llm_config": {"tie_word_embeddings": true}}"#;
        assert_eq!(tied(inner), Some(true));
        let outer = r#"{"tie_word_embeddings": true, "thinker_config": {"text_config": {}}}"#;
        assert_eq!(tied(outer), Some(true));
        assert_eq!(tied(r#"{"tie_word_embeddings": null}"#), None);
    }

    #[test]
    fn the_vocabulary_of_internvl_is_found_in_llm_config() {
        let facts = ConfigFacts::of(r#"{"llm_config": {"vocab_size": 92553}}"#).expect("a config");
        assert_eq!(facts.vocab_size, Some(92553));
    }
}

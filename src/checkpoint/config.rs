//! `config.json`: what a merge needs to know of it, and the child's copy.
//!
//! The child's config is the primary's with a few values replaced where they stand: every other byte
//! stays, so that order, spacing, `1e-05`, `\u00e9` and Python's `NaN` come out as they went in.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::checkpoint::side_file::read_text_bounded;
use crate::error::{Error, Kind, Result};
use crate::format::json::mask_python_literals;
use crate::tensor::DType;

/// The largest config that is read, in bytes.
pub(super) const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// The part of a multimodal config that describes its language model.
const TEXT_CONFIG: &str = "text_config";

/// Names under which the families of models give their depth.
const DEPTH_NAMES: [&str; 4] = ["num_hidden_layers", "n_layer", "num_layers", "n_layers"];

/// Facts of a config. Those of the language model are taken from the top level or, where the top
/// level has none, from `text_config`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFacts {
    /// `model_type`, of the top level.
    pub model_type: Option<String>,
    /// `architectures`, of the top level.
    pub architectures: Vec<String>,
    /// `vocab_size`, in rows.
    pub vocab_size: Option<u64>,
    /// `tie_word_embeddings`, where it is written out.
    pub tie_word_embeddings: Option<bool>,
    /// `dtype` or `torch_dtype`, torch's word without `torch.`.
    pub dtype: Option<String>,
    /// Number of layers, by any of its names.
    pub num_hidden_layers: Option<u64>,
    /// How the weights are quantised: `quant_method` of `quantization_config`, where there is one.
    pub quantization: Option<String>,
    /// Whether the model runs code from its directory (`auto_map`).
    pub needs_custom_code: bool,
}

/// A config and its text.
#[derive(Clone, Debug)]
pub struct Config {
    text: String,
    facts: ConfigFacts,
}

/// A config with values replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The new text.
    pub text: String,
    /// Whether a `vocab_size` was asked for and there was none to replace. The text has none then:
    /// the model's class decides, and the caller should warn.
    pub lacks_vocab_size: bool,
}

impl Config {
    /// Reads a config of at most 16 MiB.
    ///
    /// # Errors
    /// [`Kind::NoInput`] where it can't be opened; [`Kind::Data`] where it is too large, not UTF-8,
    /// or not a JSON object.
    pub fn read(path: &Path) -> Result<Config> {
        let text = read_text_bounded(path, MAX_CONFIG_BYTES)?;
        Config::parse(text).map_err(|error| error.file(path))
    }

    /// A config of this text.
    ///
    /// # Errors
    /// [`Kind::Data`] where it is not a JSON object.
    pub fn parse(text: String) -> Result<Config> {
        let facts = ConfigFacts::of(&text)?;
        Ok(Config { text, facts })
    }

    /// What it says.
    pub fn facts(&self) -> &ConfigFacts {
        &self.facts
    }

    /// Its text as read.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text with `vocab_size` (in rows) and the dtype replaced; see [`rewrite`].
    ///
    /// # Errors
    /// None in practice: the text has been read before.
    pub fn rewrite(&self, vocab_size: Option<u64>, dtype: Option<DType>) -> Result<Rewritten> {
        rewrite(&self.text, vocab_size, dtype)
    }
}

impl ConfigFacts {
    /// Facts of a config's text.
    ///
    /// # Errors
    /// [`Kind::Data`] where it is not a JSON object.
    pub fn of(text: &str) -> Result<ConfigFacts> {
        let masked = mask_python_literals(text);
        let top = Fields::parse(&masked)?;
        let inner = top.text_config();
        let mut facts = ConfigFacts {
            model_type: top.get("model_type"),
            architectures: top.get("architectures").unwrap_or_default(),
            quantization: top.quantization(),
            needs_custom_code: top.raw("auto_map").is_some_and(|value| value != "null"),
            ..ConfigFacts::default()
        };
        for fields in std::iter::once(&top).chain(inner.as_ref()) {
            facts.vocab_size = facts.vocab_size.or_else(|| fields.get("vocab_size"));
            facts.tie_word_embeddings =
                facts.tie_word_embeddings.or_else(|| fields.get("tie_word_embeddings"));
            facts.num_hidden_layers = facts
                .num_hidden_layers
                .or_else(|| DEPTH_NAMES.iter().find_map(|name| fields.get(name)));
            let dtype = || fields.get("dtype").or_else(|| fields.get("torch_dtype"));
            facts.dtype = facts.dtype.or_else(dtype);
        }
        facts.dtype = facts.dtype.map(|name| name.trim_start_matches("torch.").to_owned());
        Ok(facts)
    }
}

/// Replaces `vocab_size` where it is a number, and `dtype` and `torch_dtype` where they are text or
/// null, at the top level and in `text_config`. Nothing is added, every other byte stays.
///
/// # Errors
/// [`Kind::Data`] where `text` is not a JSON object.
pub fn rewrite(text: &str, vocab_size: Option<u64>, dtype: Option<DType>) -> Result<Rewritten> {
    let masked = mask_python_literals(text);
    let top = Fields::parse(&masked)?;
    let inner = top.text_config();
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    let mut n_vocab_sizes = 0;
    for (name, value) in std::iter::once(&top).chain(inner.as_ref()).flat_map(|fields| &fields.0) {
        let Some(span) = span_in(&masked, value.get()) else { continue };
        // From the original: a masked literal looks like a number.
        let first = text.as_bytes().get(span.start).copied().unwrap_or_default();
        match (name.as_str(), vocab_size, dtype) {
            ("vocab_size", Some(rows), _) if first.is_ascii_digit() => {
                n_vocab_sizes += 1;
                edits.push((span, rows.to_string()));
            }
            ("dtype" | "torch_dtype", _, Some(dtype)) if matches!(first, b'"' | b'n') => {
                edits.push((span, format!("\"{}\"", dtype.name())));
            }
            _ => {}
        }
    }
    edits.sort_by_key(|(span, _)| span.start);
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for (span, new) in edits {
        out.push_str(text.get(copied..span.start).unwrap_or_default());
        out.push_str(&new);
        copied = span.end;
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    Ok(Rewritten { text: out, lacks_vocab_size: vocab_size.is_some() && n_vocab_sizes == 0 })
}

/// The fields of one object, in order, as text that borrows from the whole.
pub(super) struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Fields<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Fields<'a>> {
        serde_json::from_str(text).map_err(|error| {
            Error::new(Kind::Data, "config is not usable")
                .expected("a JSON object", error.to_string())
        })
    }

    /// The last one of this name, as Python takes it.
    fn raw(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.get())
    }

    /// Its value, or `None` where it has another type.
    pub(super) fn get<T: Deserialize<'a>>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.raw(name)?).ok()
    }

    fn quantization(&self) -> Option<String> {
        let config: Option<Fields<'a>> = self.get("quantization_config");
        Some(config?.get("quant_method").unwrap_or_else(|| "by an unnamed method".to_owned()))
    }

    fn text_config(&self) -> Option<Fields<'a>> {
        serde_json::from_str(self.raw(TEXT_CONFIG)?).ok()
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        mut map: A,
    ) -> std::result::Result<Fields<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Fields(fields))
    }
}

/// Where `part`, which borrows from `whole`, stands in it.
fn span_in(whole: &str, part: &str) -> Option<Range<usize>> {
    let start = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    let end = start.checked_add(part.len())?;
    (end <= whole.len()).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA: &str = r#"{
  "architectures": ["LlamaForCausalLM"],
  "model_type": "llama",
  "rms_norm_eps": 1e-05,
  "note": "\u00e9 vocab_size: 7",
  "rope": {"vocab_size": 1, "factor": Infinity},
  "torch_dtype": "float16",
  "num_hidden_layers": 32,
  "tie_word_embeddings": false,
  "vocab_size":   32000 , "low": -Infinity,
  "nan": NaN
}
"#;

    #[test]
    fn facts_are_read_also_beside_pythons_literals() {
        let facts = ConfigFacts::of(LLAMA).expect("a config");
        let expected = ConfigFacts {
            model_type: Some("llama".into()),
            architectures: vec!["LlamaForCausalLM".into()],
            vocab_size: Some(32000),
            tie_word_embeddings: Some(false),
            dtype: Some("float16".into()),
            num_hidden_layers: Some(32),
            quantization: None,
            needs_custom_code: false,
        };
        assert_eq!(facts, expected);
    }

    #[test]
    fn facts_of_the_language_model_are_found_in_text_config() {
        let text = r#"{"auto_map": {"AutoModel": "m.M"}, "text_config": {"vocab_size": 9,
            "n_layer": 3, "dtype": "torch.bfloat16", "model_type": "inner"}, "vocab_size": null}"#;
        let facts = ConfigFacts::of(text).expect("a config");
        assert_eq!(facts.vocab_size, Some(9));
        assert_eq!(facts.num_hidden_layers, Some(3));
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
    fn a_rewrite_changes_the_asked_values_and_no_other_byte() {
        let rewritten = rewrite(LLAMA, Some(32007), Some(DType::BFloat16)).expect("a config");
        let expected = LLAMA.replace("32000", "32007").replace("float16", "bfloat16");
        assert_eq!(rewritten, Rewritten { text: expected, lacks_vocab_size: false });
        assert_eq!(rewrite(LLAMA, None, None).expect("a config").text, LLAMA);
    }

    #[test]
    fn a_rewrite_reaches_into_text_config_and_every_repetition() {
        let text = r#"{"vocab_size":1,"text_config":{"dtype":null,"vocab_size":22,
            "text_config":{"vocab_size":3}},"vocab\u005fsize":4,"torch_dtype":"auto"}"#;
        let expected = r#"{"vocab_size":555,"text_config":{"dtype":"float32","vocab_size":555,
            "text_config":{"vocab_size":3}},"vocab\u005fsize":555,"torch_dtype":"float32"}"#;
        let rewritten = rewrite(text, Some(555), Some(DType::Float32)).expect("a config");
        assert_eq!(rewritten.text, expected);
    }

    #[test]
    fn an_absent_vocab_size_is_reported_and_not_invented() {
        for text in ["{}", r#"{"vocab_size": null}"#, r#"{"vocab_size": NaN, "text_config": 3}"#] {
            let rewritten = rewrite(text, Some(5), None).expect("a config");
            assert_eq!(rewritten, Rewritten { text: text.into(), lacks_vocab_size: true });
        }
        assert!(!rewrite("{}", None, None).expect("a config").lacks_vocab_size);
    }

    #[test]
    fn what_is_not_a_json_object_is_refused() {
        let deep = format!("{{\"a\": {}", "[".repeat(1_000_000));
        for text in ["", "[]", "null", "{\"a\": }", "{} {}", "{\"a\": 1", &deep] {
            let kind = ConfigFacts::of(text).err().map(|error| error.kind());
            assert_eq!(kind, Some(Kind::Data));
            assert!(rewrite(text, Some(1), None).is_err());
        }
    }

    #[test]
    fn a_config_file_is_read_with_its_name_in_the_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("config.json");
        assert_eq!(Config::read(&path).expect_err("absent").kind(), Kind::NoInput);
        std::fs::write(&path, "[]").expect("written");
        let error = Config::read(&path).expect_err("no object");
        assert_eq!((error.kind(), error.path()), (Kind::Data, Some(path.as_path())));
        std::fs::write(&path, LLAMA).expect("written");
        let config = Config::read(&path).expect("a config");
        assert_eq!((config.text(), config.facts().vocab_size), (LLAMA, Some(32000)));
    }
}

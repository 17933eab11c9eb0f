//! Reads `config.json`, and rewrites it for a child.

mod facts;
mod fields;
mod layers;
mod rewrite;
pub(crate) mod splice;

use std::path::Path;

use serde_json::{Map, Value};

use crate::checkpoint::files::small_file::read_text_bounded;
use crate::error::Result;
use crate::format::json::mask_python_literals;
use crate::tensor::DType;

pub use facts::ConfigFacts;
pub(crate) use fields::Fields;
use fields::unusable;
pub use rewrite::{NewRows, Rewritten, rewrite};

/// The largest config that is read, in bytes.
pub(super) const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// A config and its text.
#[derive(Clone, Debug)]
pub struct Config {
    text: String,
    values: Map<String, Value>,
    facts: ConfigFacts,
}

impl Config {
    /// Reads a config of at most 16 MiB.
    ///
    /// # Errors
    /// [`Kind::NoInput`](crate::error::Kind::NoInput) where it can't be opened;
    /// [`Kind::Data`](crate::error::Kind::Data) where it is too large, not UTF-8, or not a JSON object.
    pub fn read(path: &Path) -> Result<Config> {
        let text = read_text_bounded(path, MAX_CONFIG_BYTES)?;
        Config::parse(text).map_err(|error| error.file(path))
    }

    /// Parses the text of a config.
    ///
    /// # Errors
    /// [`Kind::Data`](crate::error::Kind::Data) where it is not a JSON object.
    pub fn parse(text: String) -> Result<Config> {
        let facts = ConfigFacts::of(&text)?;
        let values = serde_json::from_str(&mask_python_literals(&text)).map_err(unusable)?;
        Ok(Config { text, values, facts })
    }

    /// What a merge needs to know.
    pub fn facts(&self) -> &ConfigFacts {
        &self.facts
    }

    /// All its values. Python's `NaN` and `Infinity` are 0 here, and of a repeated key the last one
    /// counts, as in Python.
    pub fn values(&self) -> &Map<String, Value> {
        &self.values
    }

    /// The config of a model whose layer i is layer `picks[i]` of this one's `depth` layers; `force`
    /// cuts it although it counts layers in another way.
    ///
    /// # Errors
    /// [`Kind::Data`](crate::error::Kind::Data) where it counts layers in a way that does not hold for
    /// them.
    pub fn with_layers(&self, depth: u64, picks: &[u64], force: bool) -> Result<Config> {
        Config::parse(layers::with_layers(&self.text, depth, picks, force)?)
    }

    /// Its text as read.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text with the rows of the vocabulary and the dtype replaced; see [`rewrite()`].
    ///
    /// # Errors
    /// None in practice: the text has been read before.
    pub fn rewrite(&self, rows: Option<NewRows>, dtype: Option<DType>) -> Result<Rewritten> {
        rewrite(&self.text, rows, dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    pub(super) const LLAMA: &str = r#"{
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
    fn what_is_not_a_json_object_is_refused() {
        let deep = format!("{{\"a\": {}", "[".repeat(1_000_000));
        for text in ["", "[]", "null", "{\"a\": }", "{} {}", "{\"a\": 1", &deep] {
            let kind = ConfigFacts::of(text).err().map(|error| error.kind());
            assert_eq!(kind, Some(Kind::Data));
            assert!(rewrite(text, None, None).is_err());
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

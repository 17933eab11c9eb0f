//! Reads the ids of special tokens (beginning, end, padding) from config.json and
//! generation_config.json.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::checkpoint::files::small_file::{is_present, read_text_bounded};
use crate::checkpoint::side_files::config::{Fields, MAX_CONFIG_BYTES};
use crate::error::Result;
use crate::format::json::mask_python_literals;

/// Name of the file with the defaults of generation.
pub(super) const GENERATION_CONFIG: &str = "generation_config.json";

/// Keys of the ids. `decoder_start_token_id` is not among them: it is one of these ids, or a token
/// that a model is given and never predicts.
const KEYS: [&str; 3] = ["bos_token_id", "eos_token_id", "pad_token_id"];

/// Most ids taken from one list: models have a handful, and a hostile file must not fill the
/// memory.
const MAX_IDS: usize = 4096;

/// Ids of special tokens, each with the keys that name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens(BTreeMap<u64, Vec<&'static str>>);

/// One id or a list of them; −1 stands for none.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(i64),
    Many(Vec<i64>),
}

impl SpecialTokens {
    /// The keys that name an id, `bos_token_id` before `eos_token_id` before `pad_token_id`; none
    /// for another token.
    pub fn keys_of(&self, id: u64) -> &[&'static str] {
        self.0.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Whether no id is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the ids that a config gives at its top level and for its language model.
    ///
    /// # Errors
    /// [`Kind::Data`](crate::error::Kind::Data) where it is not a JSON object.
    pub fn add(&mut self, text: &str) -> Result<()> {
        let masked = mask_python_literals(text);
        for fields in Fields::parse(&masked)?.language_models() {
            for key in KEYS {
                let ids = match fields.get(key) {
                    Some(Ids::One(id)) => vec![id],
                    Some(Ids::Many(ids)) => ids,
                    None => continue,
                };
                let ids = ids.into_iter().filter_map(|id| u64::try_from(id).ok());
                for id in ids.take(MAX_IDS) {
                    let keys = self.0.entry(id).or_default();
                    if !keys.contains(&key) {
                        keys.push(key);
                        keys.sort_unstable();
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds the ids of a directory's generation_config.json (at most 16 MiB), where there is one.
    ///
    /// # Errors
    /// As for config.json: [`Kind::Data`](crate::error::Kind::Data) where it is too large, not
    /// UTF-8 or not a JSON object, [`Kind::NoInput`](crate::error::Kind::NoInput) where it can't be
    /// opened.
    pub(crate) fn add_generation_config(&mut self, dir: &Path) -> Result<()> {
        let path = dir.join(GENERATION_CONFIG);
        if !is_present(&path)? {
            return Ok(());
        }
        let text = read_text_bounded(&path, MAX_CONFIG_BYTES)?;
        self.add(&text).map_err(|error| error.file(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn of(text: &str) -> SpecialTokens {
        let mut tokens = SpecialTokens::default();
        tokens.add(text).unwrap();
        tokens
    }

    #[test]
    fn ids_lists_and_those_of_the_language_model_are_found() {
        let text = r#"{"eos_token_id": [7, 8], "bos_token_id": 7, "rope": Infinity,
            "llm_config": {"text_config": {"eos_token_id": 10}, "pad_token_id": 9},
            "vision_config": {"pad_token_id": 1}, "decoder_start_token_id": 2}"#;
        let tokens = of(text);
        assert_eq!(tokens.keys_of(7), ["bos_token_id", "eos_token_id"]);
        assert_eq!(tokens.keys_of(8), ["eos_token_id"]);
        assert_eq!(tokens.keys_of(9), ["pad_token_id"]);
        assert_eq!(tokens.keys_of(10), ["eos_token_id"]);
        assert!(tokens.keys_of(1).is_empty() && tokens.keys_of(2).is_empty());
    }

    #[test]
    fn what_is_no_id_names_no_token() {
        for value in ["null", "-1", "[]", "\"2\"", "2.5", "{\"a\": 1}", "[1.5]"] {
            assert!(of(&format!("{{\"eos_token_id\": {value}}}")).is_empty(), "{value}");
        }
        let long: Vec<String> = (0..5000).map(|id: u64| id.to_string()).collect();
        let tokens = of(&format!("{{\"eos_token_id\": [{}]}}", long.join(",")));
        assert!(!tokens.keys_of(4095).is_empty() && tokens.keys_of(4096).is_empty());
        // Python takes the last one of a name.
        let twice = of(r#"{"eos_token_id": 1, "eos_token_id": [2, -1]}"#);
        assert_eq!(twice, of(r#"{"eos_token_id": 2}"#));
    }

    #[test]
    fn a_generation_config_is_read_beside_the_config_and_a_broken_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut tokens = of(r#"{"eos_token_id": 3}"#);
        tokens.add_generation_config(dir.path()).unwrap();
        let path = dir.path().join(GENERATION_CONFIG);
        std::fs::write(&path, r#"{"eos_token_id": [3, 4], "pad_token_id": 3}"#).unwrap();
        tokens.add_generation_config(dir.path()).unwrap();
        assert_eq!(tokens.keys_of(3), ["eos_token_id", "pad_token_id"]);
        assert_eq!(tokens.keys_of(4), ["eos_token_id"]);
        for broken in [&b""[..], b"[]", b"{\"eos_token_id\": ", b"\xff{}"] {
            std::fs::write(&path, broken).unwrap();
            let error = tokens.add_generation_config(dir.path()).unwrap_err();
            assert_eq!((error.kind(), error.path()), (Kind::Data, Some(path.as_path())));
        }
    }
}

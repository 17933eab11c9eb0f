//! Reads added tokens: `added_tokens` of tokenizer.json, `added_tokens_decoder` of
//! tokenizer_config.json, and added_tokens.json.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::format::json::mask_python_literals;

/// A token that is found in a text before the tokenizer cuts it, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AddedToken {
    /// Its text.
    pub(crate) content: String,
    /// Whether it is found only where it is a word of its own.
    #[serde(default)]
    pub(crate) single_word: bool,
    /// Whether it takes the spaces before it.
    #[serde(default)]
    pub(crate) lstrip: bool,
    /// Whether it takes the spaces behind it.
    #[serde(default)]
    pub(crate) rstrip: bool,
    /// Whether it is looked for in the normalised text.
    #[serde(default)]
    pub(crate) normalized: bool,
    /// Whether it is left out of what is shown.
    #[serde(default)]
    pub(crate) special: bool,
}

impl AddedToken {
    /// As transformers takes what added_tokens.json names: nothing is known of it but its text.
    pub(crate) fn plain(content: String) -> AddedToken {
        let (single_word, lstrip, rstrip) = (false, false, false);
        AddedToken { content, single_word, lstrip, rstrip, normalized: true, special: false }
    }
}

/// The most added tokens that a file may name.
const MOST_ADDED: usize = 1 << 20;

/// What is wrong with a file, in words.
type Read<T> = std::result::Result<T, String>;

/// `added_tokens_decoder` of tokenizer_config.json, the class and the chat template.
#[derive(Debug, Default)]
pub(crate) struct TokenizerConfig {
    pub(crate) added: Vec<(u64, AddedToken)>,
    pub(crate) class: Option<String>,
    pub(crate) chat_template: Option<String>,
}

/// An entry that may be a token; another one names no word.
#[derive(Deserialize)]
#[serde(untagged)]
enum MaybeToken {
    Token(AddedToken),
    Other(serde::de::IgnoredAny),
}

/// Reads tokenizer_config.json.
pub(crate) fn of_tokenizer_config(text: &str) -> Read<TokenizerConfig> {
    #[derive(Deserialize)]
    struct File<'a> {
        #[serde(default)]
        added_tokens_decoder: Option<BTreeMap<String, MaybeToken>>,
        #[serde(default, borrow)]
        tokenizer_class: Option<&'a serde_json::value::RawValue>,
        #[serde(default, borrow)]
        chat_template: Option<&'a serde_json::value::RawValue>,
    }
    let masked = mask_python_literals(text);
    let file: File<'_> = serde_json::from_str(&masked).map_err(|error| error.to_string())?;
    let mut added = Vec::new();
    for (id, token) in file.added_tokens_decoder.unwrap_or_default() {
        let id =
            id.parse().map_err(|_| format!("`{}` is no token id", crate::tensor::escape(&id)))?;
        if let MaybeToken::Token(token) = token {
            added.push((id, token));
        }
    }
    check_count(added.len())?;
    let class = file.tokenizer_class.and_then(|raw| serde_json::from_str(raw.get()).ok());
    let template = file.chat_template.map(|raw| raw.get()).filter(|raw| *raw != "null");
    // A plain template as its text, so that it is the same in a file of its own; a list as it stands.
    let chat_template =
        template.map(|raw| serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned()));
    Ok(TokenizerConfig { added, class, chat_template })
}

/// added_tokens.json: an object of ids. What is no id names no row.
pub(crate) fn of_added_tokens(bytes: &[u8]) -> Read<Vec<(u64, AddedToken)>> {
    let tokens: BTreeMap<String, Value> =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    check_count(tokens.len())?;
    let of_id = |(word, id): (String, Value)| Some((id.as_u64()?, AddedToken::plain(word)));
    Ok(tokens.into_iter().filter_map(of_id).collect())
}

fn check_count(count: usize) -> Read<()> {
    if count > MOST_ADDED {
        return Err(format!("more than {MOST_ADDED} added tokens"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_names_added_tokens_its_class_and_its_template() {
        let text = r#"{"model_max_length": Infinity, "tokenizer_class": "LlamaTokenizer",
            "added_tokens_decoder": {"3": {"content": "<x>", "special": true, "lstrip": true}},
            "chat_template": "{{ \u00e9 }}"}"#;
        let config = of_tokenizer_config(text).unwrap();
        let token = AddedToken {
            lstrip: true,
            normalized: false,
            special: true,
            ..AddedToken::plain("<x>".to_owned())
        };
        assert_eq!(config.added, [(3, token)]);
        assert_eq!(config.class.as_deref(), Some("LlamaTokenizer"));
        assert_eq!(config.chat_template.as_deref(), Some("{{ é }}"));
        assert!(
            of_tokenizer_config(r#"{"added_tokens_decoder": {"x": {"content": "a"}}}"#).is_err()
        );
        let empty = of_tokenizer_config(r#"{"added_tokens_decoder": {"1": {}}}"#);
        assert!(empty.is_ok_and(|config| config.added.is_empty()));
        assert!(of_tokenizer_config("{").is_err());
    }

    #[test]
    fn added_tokens_json_names_ids() {
        let found = of_added_tokens(br#"{"<a>": 7}"#).unwrap();
        assert_eq!(found, [(7, AddedToken::plain("<a>".to_owned()))]);
        assert_eq!(of_added_tokens(br#"{"<a>": -7}"#).unwrap(), []);
        assert!(of_added_tokens(b"[]").is_err());
    }
}

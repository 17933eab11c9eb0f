//! Reads `tokenizer.json`: the words of its model and the added ones.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::checkpoint::side_files::words::added::AddedToken;
use crate::checkpoint::side_files::words::spelling::{Alphabet, Spelling};
use crate::checkpoint::side_files::words::vocabulary::{Vocabulary, Words};

#[derive(Deserialize)]
struct File<'a> {
    #[serde(default)]
    added_tokens: Option<Vec<Numbered>>,
    #[serde(default, borrow)]
    normalizer: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pre_tokenizer: Option<&'a RawValue>,
    #[serde(default, borrow)]
    decoder: Option<&'a RawValue>,
    model: Option<Model>,
}

#[derive(Deserialize)]
struct Numbered {
    id: u64,
    #[serde(flatten)]
    token: AddedToken,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    vocab: Option<ModelWords>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
}

/// The vocabulary of a tokenizer.json.
///
/// # Errors
/// In words, where it is no such file.
pub(crate) fn read(bytes: &[u8]) -> Result<Vocabulary, String> {
    let file: File<'_> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let Some(model) = file.model else { return Ok(Vocabulary::default()) };
    let words = model.vocab.map(|words| words.0).unwrap_or_default();
    let parts = [file.normalizer, file.pre_tokenizer, file.decoder].into_iter().flatten();
    let names = |name: &str| parts.clone().any(|part| part.get().contains(name));
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    let spelling = Spelling {
        alphabet: if names("\"ByteLevel\"") {
            Alphabet::Bytes
        } else if names("\"Metaspace\"") || names("▁") || names("\\u2581") {
            Alphabet::Spaces
        } else {
            Alphabet::Text
        },
        prefix: filled(model.continuing_subword_prefix),
        suffix: filled(model.end_of_word_suffix),
    };
    let added = file.added_tokens.unwrap_or_default();
    let mut added: Vec<(u64, AddedToken)> =
        added.into_iter().map(|Numbered { id, token }| (id, token)).collect();
    // The library asks the model first for the id of an added token.
    let mut ids: HashMap<String, &mut u64> =
        added.iter_mut().map(|(id, token)| (token.content.clone(), id)).collect();
    for (word, id) in words.entries() {
        if let Some(stated) = ids.remove(word) {
            *stated = id;
        }
    }
    let unread = model.kind.filter(|_| words.len() == 0);
    Ok(Vocabulary {
        spelling,
        unread: unread
            .map(|kind| format!("a {} model without words", crate::tensor::escape(&kind))),
        ..Vocabulary::new(words, added)
    })
}

/// An object of ids, or the pieces of a unigram model, whose places are ids.
#[derive(Default)]
pub(crate) struct ModelWords(pub(crate) Words);

impl<'de> Deserialize<'de> for ModelWords {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ModelWordsVisitor)
    }
}

struct ModelWordsVisitor;

impl<'de> Visitor<'de> for ModelWordsVisitor {
    type Value = ModelWords;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tokens and their ids")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ModelWords, A::Error> {
        let mut words = Words::default();
        while let Some(word) = map.next_key::<String>()? {
            // A value that is no id is an unusual file's; it names no row.
            if let Id(Some(id)) = map.next_value()? {
                words.add(id, word).map_err(A::Error::custom)?;
            }
        }
        Ok(ModelWords(words))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ModelWords, A::Error> {
        let mut words = Words::default();
        while let Some((word, _)) = list.next_element::<(String, IgnoredAny)>()? {
            words.add(words.len() as u64, word).map_err(A::Error::custom)?;
        }
        Ok(ModelWords(words))
    }
}

/// A value that may be an id.
#[derive(Deserialize)]
#[serde(from = "MaybeId")]
struct Id(Option<u64>);

#[derive(Deserialize)]
#[serde(untagged)]
enum MaybeId {
    Id(u64),
    Other(IgnoredAny),
}

impl From<MaybeId> for Id {
    fn from(value: MaybeId) -> Id {
        match value {
            MaybeId::Id(id) => Id(Some(id)),
            MaybeId::Other(_) => Id(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<(u64, String)> {
        let found = read(text.as_bytes()).unwrap();
        found.words().map(|(id, word)| (id, word.to_owned())).collect()
    }

    #[test]
    fn words_of_maps_and_lists_and_added_tokens_are_found() {
        let of = |pairs: &[(u64, &str)]| -> Vec<(u64, String)> {
            pairs.iter().map(|(id, word)| (*id, (*word).to_owned())).collect()
        };
        assert_eq!(
            words(
                r#"{"added_tokens": [{"id": 2, "content": "<x>", "special": true}],
                "model": {"type": "BPE", "vocab": {"b": 1, "\u0120a": 0, "odd": "1"}, "merges": [["a", "b"]]}}"#
            ),
            of(&[(0, "Ġa"), (1, "b"), (2, "<x>")])
        );
        // An id that is stated and not given.
        assert_eq!(
            words(r#"{"added_tokens": [{"id": 7, "content": "a"}], "model": {"vocab": {"a": 0}}}"#),
            of(&[(0, "a")])
        );
        assert_eq!(
            words(r#"{"model": {"vocab": [["<unk>", 0], ["▁a", -1.5]]}}"#),
            of(&[(0, "<unk>"), (1, "▁a")])
        );
        assert!(words("{}").is_empty());
        for broken in [
            "",
            "{",
            r#"{"model": {"vocab": {"a": 3}"#,
            r#"{"added_tokens": [{"id": 1}]}"#,
            r#"{"model": {"vocab": [3]}}"#,
        ] {
            assert!(read(broken.as_bytes()).is_err(), "{broken}");
        }
    }

    #[test]
    fn its_parts_tell_how_words_are_spelled() {
        let spelling = |parts: &str| {
            let text = format!(r#"{{{parts}, "model": {{"type": "BPE", "vocab": {{"a": 0}}}}}}"#);
            read(text.as_bytes()).unwrap().spelling.alphabet
        };
        assert_eq!(
            spelling(
                r#""pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split"}, {"type": "ByteLevel"}]}"#
            ),
            Alphabet::Bytes
        );
        assert_eq!(
            spelling(r#""decoder": {"type": "Metaspace", "replacement": "x"}"#),
            Alphabet::Spaces
        );
        assert_eq!(
            spelling(
                r#""normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}"#
            ),
            Alphabet::Spaces
        );
        assert_eq!(spelling(r#""normalizer": null"#), Alphabet::Text);
        let piece = br###"{"model": {"type": "WordPiece", "continuing_subword_prefix": "##", "vocab": {}}}"###;
        assert_eq!(read(piece).unwrap().spelling.prefix.as_deref(), Some("##"));
    }
}

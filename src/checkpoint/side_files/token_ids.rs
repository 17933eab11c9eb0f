//! Finds the highest token id in a tokenizer file.
//!
//! Only ids are kept while parsing, so a vocabulary of 250,000 entries costs no more than its text.
//! Entries that are not ids are passed over; a file that is not in its own format is an error.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::checkpoint::side_files::protobuf::Message;
use crate::format::json::mask_python_literals;

/// The highest id (`None` where the file names none), or what is wrong with the file.
pub(super) type MaxId = std::result::Result<Option<u64>, String>;

/// `tokenizer.json` of the tokenizers library: `model.vocab` (an object of ids, or the pieces of a
/// unigram model in order) and `added_tokens`.
pub(super) fn of_tokenizer_json(bytes: &[u8]) -> MaxId {
    #[derive(serde::Deserialize)]
    struct File {
        model: Option<Model>,
        added_tokens: Option<Vec<AddedToken>>,
    }
    #[derive(serde::Deserialize)]
    struct Model {
        vocab: Option<Vocabulary>,
    }
    #[derive(serde::Deserialize)]
    struct AddedToken {
        id: u64,
    }
    let file: File = from_json(bytes)?;
    let vocabulary = file.model.and_then(|model| model.vocab).and_then(|vocabulary| vocabulary.0);
    let added = file.added_tokens.unwrap_or_default();
    Ok(vocabulary.max(added.iter().map(|token| token.id).max()))
}

/// `vocab.json` and `added_tokens.json`: an object of ids.
pub(super) fn of_vocabulary_json(bytes: &[u8]) -> MaxId {
    from_json::<Vocabulary>(bytes).map(|vocabulary| vocabulary.0)
}

/// `tokenizer_config.json`: `added_tokens_decoder`, an object whose names are ids.
pub(super) fn of_tokenizer_config(bytes: &[u8]) -> MaxId {
    #[derive(serde::Deserialize)]
    struct File {
        added_tokens_decoder: Option<Decoder>,
    }
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let file: File = from_json(mask_python_literals(text).as_bytes())?;
    Ok(file.added_tokens_decoder.and_then(|decoder| decoder.0))
}

/// `vocab.txt`: one token a line, ids from 0. Lines end as in Python's text mode.
pub(super) fn of_lines(bytes: &[u8]) -> MaxId {
    let mut n_lines = 0u64;
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
        n_lines += 1;
        let (_, ending) = rest.split_at(end);
        rest = ending.strip_prefix(b"\r\n").or_else(|| ending.get(1..)).unwrap_or_default();
    }
    n_lines += u64::from(!rest.is_empty());
    Ok(n_lines.checked_sub(1))
}

/// A sentencepiece model: the pieces of its protobuf, in order. Tokenizers may shift them by one or
/// two ids, so this is a lower bound. Files of tiktoken ranks have the same name.
pub(super) fn of_sentencepiece(bytes: &[u8]) -> MaxId {
    // Ranks first: short lines can pass for protobuf, but no model passes for lines of text.
    match tiktoken_ranks(bytes).or_else(|| count_pieces(bytes)?.checked_sub(1)) {
        Some(max) => Ok(Some(max)),
        None => Err("neither sentencepiece pieces nor ranks".to_owned()),
    }
}

/// Counts field 1 (`pieces`) of sentencepiece's `ModelProto`; `None` where the bytes are no
/// protobuf.
fn count_pieces(bytes: &[u8]) -> Option<u64> {
    let mut count = 0u64;
    for field in Message(bytes) {
        let (number, content) = field?;
        count += u64::from(number == 1 && content.is_some());
    }
    Some(count)
}

/// The highest rank in lines of `base64 rank`; `None` where a line is something else.
fn tiktoken_ranks(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut max = None;
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (_, rank) = line.split_once(' ')?;
        max = max.max(Some(rank.parse().ok()?));
    }
    max
}

fn from_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> std::result::Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// The highest id of an object of ids, or of a list whose positions are ids.
struct Vocabulary(Option<u64>);

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Ids;
        impl<'de> Visitor<'de> for Ids {
            type Value = Vocabulary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tokens and their ids")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Vocabulary, A::Error> {
                let mut max = None;
                while let Some((_, id)) = map.next_entry::<IgnoredAny, Id>()? {
                    max = max.max(id.0);
                }
                Ok(Vocabulary(max))
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut sequence: A,
            ) -> std::result::Result<Vocabulary, A::Error> {
                let mut count = 0u64;
                while sequence.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Vocabulary(count.checked_sub(1)))
            }
        }
        deserializer.deserialize_any(Ids)
    }
}

/// The highest id among the names of an object.
struct Decoder(Option<u64>);

impl<'de> Deserialize<'de> for Decoder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Decoder;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of token ids")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Decoder, A::Error> {
                let mut max = None;
                while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
                    let expected = || A::Error::custom(format!("`{name}` is no token id"));
                    max = max.max(Some(name.parse().map_err(|_| expected())?));
                }
                Ok(Decoder(max))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// A value that may be an id.
struct Id(Option<u64>);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Value;
        impl<'de> Visitor<'de> for Value {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token id")
            }

            fn visit_u64<E>(self, id: u64) -> std::result::Result<Id, E> {
                Ok(Id(Some(id)))
            }

            fn visit_i64<E>(self, _: i64) -> std::result::Result<Id, E> {
                Ok(Id(None))
            }

            fn visit_f64<E>(self, _: f64) -> std::result::Result<Id, E> {
                Ok(Id(None))
            }

            fn visit_bool<E>(self, _: bool) -> std::result::Result<Id, E> {
                Ok(Id(None))
            }

            fn visit_str<E>(self, _: &str) -> std::result::Result<Id, E> {
                Ok(Id(None))
            }

            fn visit_unit<E>(self) -> std::result::Result<Id, E> {
                Ok(Id(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                sequence: A,
            ) -> std::result::Result<Id, A::Error> {
                IgnoredAny.visit_seq(sequence).map(|_| Id(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Id, A::Error> {
                IgnoredAny.visit_map(map).map(|_| Id(None))
            }
        }
        deserializer.deserialize_any(Value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokenizer_json_names_ids_in_its_vocabulary_and_its_added_tokens() {
        let max = |text: &str| of_tokenizer_json(text.as_bytes());
        assert_eq!(max(r#"{"model": {"type": "BPE", "vocab": {"a": 3, "b": 1}}}"#), Ok(Some(3)));
        assert_eq!(
            max(r#"{"added_tokens": [{"id": 7, "content": "x"}, {"id": 2}], "version": "1.0",
                "model": {"merges": [["a", "b"]], "vocab": [["a", -1.5], ["b", 0]]}}"#),
            Ok(Some(7))
        );
        assert_eq!(max(r#"{"model": {"vocab": [["a", -1.5], ["b", 0]]}}"#), Ok(Some(1)));
        assert_eq!(max("{}"), Ok(None));
        assert!(max(r#"{"model": {"vocab": {"a": 3}"#).is_err());
        assert!(max(r#"{"added_tokens": [{"content": "x"}]}"#).is_err());
    }

    #[test]
    fn vocabularies_pass_over_what_is_no_id() {
        let text = r#"{"a": 1, "\u00e9": 5, "c": -1, "d": null, "e": {"x": 9}, "f": [9], "g": "9", "h": 9.5}"#;
        assert_eq!(of_vocabulary_json(text.as_bytes()), Ok(Some(5)));
        assert_eq!(of_vocabulary_json(b"{}"), Ok(None));
        assert!(of_vocabulary_json(b"7").is_err());
    }

    #[test]
    fn tokenizer_config_names_ids_as_names() {
        let text = r#"{"model_max_length": 1000000000000000019884624838656, "x": Infinity,
            "added_tokens_decoder": {"32000": {"content": "a"}, "5": {}}}"#;
        assert_eq!(of_tokenizer_config(text.as_bytes()), Ok(Some(32000)));
        assert_eq!(of_tokenizer_config(b"{}"), Ok(None));
        assert!(of_tokenizer_config(br#"{"added_tokens_decoder": {"x": {}}}"#).is_err());
    }

    #[test]
    fn lines_are_counted_as_pythons_text_mode_does() {
        for (text, max) in [
            ("", None),
            ("a", Some(0)),
            ("a\n", Some(0)),
            ("a\r\nb\r\n", Some(1)),
            ("a\n\n", Some(1)),
            ("a\rb", Some(1)),
            ("\n\r\n\r", Some(2)),
        ] {
            assert_eq!(of_lines(text.as_bytes()), Ok(max), "{text:?}");
        }
    }

    #[test]
    fn sentencepiece_pieces_are_counted_and_other_fields_skipped() {
        let piece = b"\x0a\x06\x0a\x01a\x15\x00\x00";
        // two pieces, field 2 (length-delimited), 3 (varint), 4 (64 bits), 5 (32 bits)
        let model =
            [&piece[..], piece, b"\x12\x01x\x18\x96\x01\x21\0\0\0\0\0\0\0\0\x2d\0\0\0\0"].concat();
        assert_eq!(of_sentencepiece(&model), Ok(Some(1)));
        for end in 1..model.len() {
            let cut = of_sentencepiece(&model[..end]);
            assert!(cut.is_err() || cut == Ok(Some(0)) || cut == Ok(Some(1)));
        }
        for bytes in [
            &b""[..],
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x0a",
            &[0xff; 20],
            b"\x0b",
        ] {
            assert!(of_sentencepiece(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn ranks_under_a_sentencepiece_name_are_read() {
        assert_eq!(of_sentencepiece(b"IQ== 0\nIg== 1\nIw== 200\n"), Ok(Some(200)));
        assert!(of_sentencepiece(b"version https://git-lfs.github.com/spec/v1\n").is_err());
    }
}

//! Parses untrusted JSON: all pairs of an object are kept, in order, repeated names too.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A JSON value of which objects, text and numbers are kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Object(Vec<(String, Json)>),
    Array,
    Text(String),
    Whole(u64),
    /// Negative, fractional, or beyond u64.
    Number(f64),
    Bool,
    Null,
}

impl Json {
    /// The kind of value, as messages name it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Json::Object(_) => "an object",
            Json::Array => "an array",
            Json::Text(_) => "text",
            Json::Whole(_) | Json::Number(_) => "a number",
            Json::Bool => "a boolean",
            Json::Null => "null",
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Json::Object(pairs))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Json, A::Error> {
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Json::Array)
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Whole(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        #[expect(clippy::cast_precision_loss, reason = "negative: never used as a count")]
        Ok(Json::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Bool)
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }
}

/// Replaces what Python writes and JSON does not know (`NaN`, `Infinity`, `-Infinity`) by zeros and
/// blanks of the same length, so that positions in the result are positions in `text`. Text inside
/// quotes stays.
pub(crate) fn mask_python_literals(text: &str) -> Cow<'_, str> {
    const LITERALS: [(&str, &str); 2] = [("Infinity", "0       "), ("NaN", "0  ")];
    let mut out = String::new();
    let mut copied = 0;
    let mut in_quotes = false;
    let mut skip_until = 0;
    for (position, byte) in text.bytes().enumerate() {
        if position < skip_until {
            continue;
        }
        match (byte, in_quotes) {
            (b'"', _) => in_quotes = !in_quotes,
            // An escape takes the next character with it.
            (b'\\', true) => skip_until = position + 2,
            (b'I' | b'N', false) => {
                let rest = text.get(position..).unwrap_or_default();
                if let Some((literal, mask)) = LITERALS.iter().find(|(l, _)| rest.starts_with(l)) {
                    out.push_str(text.get(copied..position).unwrap_or_default());
                    out.push_str(mask);
                    skip_until = position + literal.len();
                    copied = skip_until;
                }
            }
            _ => {}
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_literals_are_masked_outside_quotes_only_and_keep_their_length() {
        let text = r#"{"a": NaN, "NaN": [-Infinity, Infinity], "b\"NaN": "\\", "c": NaN}"#;
        let masked = mask_python_literals(text);
        assert_eq!(masked, r#"{"a": 0  , "NaN": [-0       , 0       ], "b\"NaN": "\\", "c": 0  }"#);
        assert_eq!(masked.len(), text.len());
        assert!(matches!(mask_python_literals(r#"{"a": "NaN"}"#), Cow::Borrowed(_)));
    }

    #[test]
    fn a_name_that_is_there_twice_is_kept_twice() {
        let json: Json = serde_json::from_str(r#"{"a": 1, "a": [1, {"b": 2}]}"#).expect("valid");
        assert_eq!(
            json,
            Json::Object(vec![("a".into(), Json::Whole(1)), ("a".into(), Json::Array)])
        );
    }
}

//! Reads and writes the index of a sharded checkpoint, `pytorch_model.bin.index.json`.
//!
//! ```json
//! {
//!   "metadata": {
//!     "total_parameters": 3632,
//!     "total_size": 14528
//!   },
//!   "weight_map": {
//!     "lm_head.weight": "pytorch_model-00005-of-00005.bin"
//!   }
//! }
//! ```
//!
//! Source: transformers 4.57.3 `modeling_utils.py` (`save_pretrained`), which writes it with
//! Python's `json.dumps(index, indent=2, sort_keys=True) + "\n"`.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use super::error::{FormatError, Rule};
use super::json::Json;
use crate::tensor::escape;

/// The largest index that is read, in bytes: some 500,000 tensors.
pub const MAX_INDEX_BYTES: u64 = 64 << 20;

/// The longest file name that Linux takes, in bytes.
const MAX_FILE_NAME_BYTES: usize = 255;

/// A checkpoint's index: which file holds which tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// `metadata.total_size`, in bytes, if it is a count. Versions before 4.32 wrote a float; its
    /// fraction is dropped.
    pub total_size_bytes: Option<u64>,
    /// `metadata.total_parameters`, in elements, if it is a count.
    pub total_parameters: Option<u64>,
    /// (tensor name, file name) in the file's order. Names are unique, file names plain.
    pub weight_map: Vec<(String, String)>,
}

impl Index {
    /// Reads an index from the bytes of its file.
    ///
    /// # Errors
    /// [`Rule::Index`]: not JSON, no `weight_map`, an empty one, a repeated name, a value that is
    /// not the plain name of a file in the same directory, more than [`MAX_INDEX_BYTES`].
    pub fn parse(bytes: &[u8]) -> Result<Index, FormatError> {
        if bytes.len() as u64 > MAX_INDEX_BYTES {
            let expected = format!("at most {MAX_INDEX_BYTES} bytes");
            return Err(refusal("index", expected, bytes.len().to_string()));
        }
        let root: Json = serde_json::from_slice(bytes)
            .map_err(|error| refusal("index", "JSON", error.to_string()))?;
        let Json::Object(pairs) = root else {
            return Err(refusal("index", "an object", root.kind()));
        };
        let pairs = unique("index", pairs)?;
        let mut metadata = None;
        let mut weight_map = None;
        for (name, value) in pairs {
            match name.as_str() {
                "metadata" => metadata = Some(value),
                "weight_map" => weight_map = Some(value),
                _ => {}
            }
        }
        let metadata = match metadata {
            None | Some(Json::Null) => Vec::new(),
            Some(Json::Object(pairs)) => unique("index metadata", pairs)?,
            Some(other) => return Err(refusal("index metadata", "an object", other.kind())),
        };
        let count = |name: &str| {
            metadata.iter().find(|(key, _)| key == name).and_then(|(_, value)| as_count(value))
        };
        Ok(Index {
            total_size_bytes: count("total_size"),
            total_parameters: count("total_parameters"),
            weight_map: checked_weight_map(weight_map)?,
        })
    }
}

/// The text of an index: `total_parameters` in elements (diffusers leaves it out),
/// `total_size_bytes` over distinct storages, and (tensor name, file name) in any order. A repeated
/// name keeps its last file.
pub fn index_text<'a>(
    total_parameters: Option<u64>,
    total_size_bytes: u64,
    weight_map: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> String {
    // UTF-8 sorts by code point, as Python does.
    let sorted: BTreeMap<&str, &str> = weight_map.into_iter().collect();
    let mut out = "{\n  \"metadata\": {\n    ".to_owned();
    if let Some(count) = total_parameters {
        out.push_str(&format!("\"total_parameters\": {count},\n    "));
    }
    out.push_str(&format!("\"total_size\": {total_size_bytes}\n  }},\n  \"weight_map\": {{"));
    for (position, (name, file)) in sorted.iter().enumerate() {
        out.push_str(if position == 0 { "\n    " } else { ",\n    " });
        push_python_text(name, &mut out);
        out.push_str(": ");
        push_python_text(file, &mut out);
    }
    out.push_str(if sorted.is_empty() { "}\n}\n" } else { "\n  }\n}\n" });
    out
}

/// A JSON string as Python writes it with `ensure_ascii`: all but space to `~` escaped.
fn push_python_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    // Writing to a String can't fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

fn refusal(what: &str, expected: impl Into<String>, found: impl Into<String>) -> FormatError {
    FormatError::new(Rule::Index, what, expected, found)
}

fn unique(what: &str, pairs: Vec<(String, Json)>) -> Result<Vec<(String, Json)>, FormatError> {
    let mut seen = HashSet::with_capacity(pairs.len());
    if let Some((name, _)) = pairs.iter().find(|(name, _)| !seen.insert(name.as_str())) {
        return Err(refusal(what, "every name once", format!("`{}` twice", escape(name))));
    }
    Ok(pairs)
}

/// A count that may have been written as a float. Anything else is ignored, as in transformers: the
/// figure is informative, nothing depends on it.
fn as_count(value: &Json) -> Option<u64> {
    match value {
        Json::Whole(count) => Some(*count),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "in range, and the fraction is meant to go"
        )]
        Json::Number(count) if (0.0..1.8e19).contains(count) => Some(*count as u64),
        _ => None,
    }
}

fn checked_weight_map(value: Option<Json>) -> Result<Vec<(String, String)>, FormatError> {
    let pairs = match value {
        Some(Json::Object(pairs)) => unique("index weight_map", pairs)?,
        Some(other) => return Err(refusal("index weight_map", "an object", other.kind())),
        None => return Err(refusal("index", "a `weight_map`", "none")),
    };
    if pairs.is_empty() {
        return Err(refusal("index weight_map", "tensor names", "none"));
    }
    let mut weight_map = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        let Json::Text(file) = value else {
            return Err(refusal("index weight_map", "a file name", value.kind()).tensor(name));
        };
        if !is_plain_file_name(&file) {
            let expected = "the plain name of a file in the same directory";
            return Err(
                refusal("index weight_map", expected, format!("`{}`", escape(&file))).tensor(name)
            );
        }
        weight_map.push((name, file));
    }
    Ok(weight_map)
}

/// Whether a name is a single component that can't leave its directory and isn't hidden.
fn is_plain_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_FILE_NAME_BYTES
        && !name.starts_with('.')
        && !name.contains(['/', '\\', '\0'])
        && !name.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Index, FormatError> {
        Index::parse(text.as_bytes())
    }

    fn refused(text: &str) -> bool {
        parse(text).is_err_and(|error| error.rule == Rule::Index)
    }

    #[test]
    fn the_weight_map_keeps_the_files_order() {
        let index = parse(
            r#"{"weight_map": {"z": "b.bin", "a": "a.bin"}, "metadata": {"total_size": 8,
                "total_parameters": 2, "more": null}, "other": [1, {"x": 2}]}"#,
        )
        .expect("valid");
        assert_eq!(
            index,
            Index {
                total_size_bytes: Some(8),
                total_parameters: Some(2),
                weight_map: vec![("z".into(), "b.bin".into()), ("a".into(), "a.bin".into())],
            }
        );
    }

    #[test]
    fn metadata_may_be_missing_or_hold_floats() {
        let total = |metadata: &str| {
            parse(&format!(r#"{{{metadata} "weight_map": {{"a": "a.bin"}}}}"#))
                .expect("valid")
                .total_size_bytes
        };
        assert_eq!(total(""), None);
        assert_eq!(total(r#""metadata": null,"#), None);
        assert_eq!(total(r#""metadata": {},"#), None);
        assert_eq!(total(r#""metadata": {"total_size": 123.5},"#), Some(123));
        assert_eq!(total(r#""metadata": {"total_size": 2.7e10},"#), Some(27_000_000_000));
        assert_eq!(total(r#""metadata": {"total_size": -1},"#), None);
        assert_eq!(total(r#""metadata": {"total_size": 1e300},"#), None);
        assert_eq!(total(r#""metadata": {"total_size": "8"},"#), None);
        assert!(refused(r#"{"metadata": [], "weight_map": {"a": "a.bin"}}"#));
    }

    #[test]
    fn an_index_without_a_weight_map_of_names_is_refused() {
        for text in [
            "",
            "[]",
            "{}",
            "not json",
            r#"{"weight_map": ["a"]}"#,
            r#"{"weight_map": null}"#,
            r#"{"weight_map": {}}"#,
            r#"{"weight_map": {"a": 1}}"#,
            r#"{"weight_map": {"a": "a.bin"}} trailing"#,
            "\u{feff}{\"weight_map\": {\"a\": \"a.bin\"}}",
        ] {
            assert!(refused(text), "{text}");
        }
    }

    #[test]
    fn repeated_names_are_refused_at_every_level() {
        for text in [
            r#"{"weight_map": {"a": "a.bin", "\u0061": "b.bin"}}"#,
            r#"{"weight_map": {"a": "a.bin"}, "weight_map": {"b": "b.bin"}}"#,
            r#"{"metadata": {"total_size": 1, "total_size": 1}, "weight_map": {"a": "a.bin"}}"#,
        ] {
            assert!(refused(text), "{text}");
        }
    }

    #[test]
    fn file_names_that_could_leave_the_directory_are_refused_with_their_tensor() {
        let long = "x".repeat(256);
        for file in [
            "", ".", "..", "../a.bin", "/a.bin", "d/a.bin", "d\\a.bin", "a\0.bin", ".a.bin",
            "a..bin", &long,
        ] {
            let quoted = serde_json::to_string(file).expect("text");
            let error = parse(&format!(r#"{{"weight_map": {{"t": {quoted}}}}}"#))
                .expect_err("a file name that is not plain");
            assert_eq!((error.rule, error.tensor.as_deref()), (Rule::Index, Some("t")), "{file}");
        }
        assert!(parse(&format!(r#"{{"weight_map": {{"t": "{}"}}}}"#, &long[1..])).is_ok());
    }

    #[test]
    fn deep_nesting_is_refused_without_a_stack_overflow() {
        let deep = "[".repeat(1_000_000);
        assert!(refused(&deep));
        assert!(refused(&format!(r#"{{"x": {deep}"#)));
        assert!(refused(&format!(r#"{{"x": {}"#, r#"{"x":"#.repeat(1_000_000))));
    }

    #[test]
    fn the_text_is_what_python_writes() {
        // json.dumps(..., indent=2, sort_keys=True) + "\n" of Python 3.11
        let text = index_text(
            Some(3632),
            14528,
            [
                ("layers.2", "f-00001-of-00002.bin"),
                ("layers.10", "f-00002-of-00002.bin"),
                ("é\u{1f600}\u{ff5e}\u{7f}", "a"),
                ("é\u{ff5e}", "a"),
                ("q\"b\\/\n\r\t\u{8}\u{c}\u{1}", "a"),
            ],
        );
        let expected = concat!(
            "{\n",
            "  \"metadata\": {\n",
            "    \"total_parameters\": 3632,\n",
            "    \"total_size\": 14528\n",
            "  },\n",
            "  \"weight_map\": {\n",
            "    \"layers.10\": \"f-00002-of-00002.bin\",\n",
            "    \"layers.2\": \"f-00001-of-00002.bin\",\n",
            "    \"q\\\"b\\\\/\\n\\r\\t\\b\\f\\u0001\": \"a\",\n",
            "    \"\\u00e9\\uff5e\": \"a\",\n",
            "    \"\\u00e9\\ud83d\\ude00\\uff5e\\u007f\": \"a\"\n",
            "  }\n",
            "}\n",
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn a_written_index_reads_back() {
        let text = index_text(Some(1), 2, [("b", "x.bin"), ("a", "y.bin")]);
        let index = parse(&text).expect("valid");
        assert_eq!((index.total_parameters, index.total_size_bytes), (Some(1), Some(2)));
        let without = Index::parse(index_text(None, 2, [("b", "x.bin")]).as_bytes());
        assert_eq!(without.expect("valid").total_parameters, None);
        assert_eq!(index.weight_map[0], ("a".into(), "y.bin".into()));
    }
}

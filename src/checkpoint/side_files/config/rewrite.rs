//! Rewrites the primary's config for a child, with a few values replaced in place. Every other byte
//! stays, so that order, spacing, `1e-05`, `\u00e9` and Python's `NaN` come out as they went in.

use serde_json::value::RawValue;

use crate::checkpoint::side_files::config::fields::{Fields, span_in};
use crate::checkpoint::side_files::config::splice::Splice;
use crate::error::Result;
use crate::format::json::mask_python_literals;
use crate::tensor::DType;

/// How every key ends that gives the rows of a vocabulary: `vocab_size`, `padded_vocab_size`.
const VOCAB_SIZE: &str = "vocab_size";

/// Deepest level of objects and arrays that is looked into.
const DEEPEST: usize = 32;

/// Rows of a vocabulary before and after the merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewRows {
    /// The primary's.
    pub old: u64,
    /// The child's.
    pub new: u64,
}

/// A config with values replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The new text.
    pub text: String,
    /// Whether there was no `vocab_size` to replace. None is added: the model's class decides, and
    /// the caller should warn.
    pub lacks_vocab_size: bool,
}

/// Replaces the rows of vocabularies; and at the top level and in `text_config`, `dtype` and
/// `torch_dtype` where they are text or null. Nothing is added, and every other byte stays.
///
/// Rows are `vocab_size` at these two places, whatever its value (a padded vocabulary has more rows
/// than it says), and every key ending in `vocab_size`, at any depth, whose value is the primary's
/// rows: `padded_vocab_size`, `llm_config.vocab_size`, `decoder_vocab_size`.
///
/// # Errors
/// [`Kind::Data`](crate::error::Kind::Data) where `text` is not a JSON object.
pub fn rewrite(text: &str, rows: Option<NewRows>, dtype: Option<DType>) -> Result<Rewritten> {
    let masked = mask_python_literals(text);
    let top = Fields::parse(&masked)?;
    let mut edits =
        Edits { text, masked: &masked, rows, dtype, splice: Splice::new(text), n_rows: 0 };
    edits.object(&top, Level::Top, DEEPEST);
    let Edits { splice, n_rows, .. } = edits;
    Ok(Rewritten { text: splice.finish(), lacks_vocab_size: rows.is_some() && n_rows == 0 })
}

/// Where an object is in the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Top,
    TextConfig,
    Deeper,
}

/// The edits found so far.
struct Edits<'a> {
    text: &'a str,
    masked: &'a str,
    rows: Option<NewRows>,
    dtype: Option<DType>,
    splice: Splice<'a>,
    n_rows: usize,
}

impl Edits<'_> {
    fn object(&mut self, fields: &Fields<'_>, level: Level, depth: usize) {
        for (name, value) in &fields.0 {
            self.field(name, value, level);
            let below = match (level, name.as_str()) {
                (Level::Top, "text_config") => Level::TextConfig,
                _ => Level::Deeper,
            };
            self.inside(value, below, depth);
        }
    }

    fn inside(&mut self, value: &RawValue, level: Level, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else { return };
        if let Ok(fields) = serde_json::from_str::<Fields<'_>>(value.get()) {
            self.object(&fields, level, depth);
        } else if value.get().starts_with('[')
            && let Ok(values) = serde_json::from_str::<Vec<&RawValue>>(value.get())
        {
            values.into_iter().for_each(|value| self.inside(value, Level::Deeper, depth));
        }
    }

    fn field(&mut self, name: &str, value: &RawValue, level: Level) {
        let Some(span) = span_in(self.masked, value.get()) else { return };
        // From the original: a masked literal looks like a number.
        let first = self.text.as_bytes().get(span.start).copied().unwrap_or_default();
        match (name, self.rows, self.dtype) {
            (name, Some(rows), _) if name.ends_with(VOCAB_SIZE) && first.is_ascii_digit() => {
                let whatever = name == VOCAB_SIZE && level != Level::Deeper;
                if whatever || value.get().parse() == Ok(rows.old) {
                    self.n_rows += 1;
                    self.splice.replace(span, rows.new.to_string());
                }
            }
            ("dtype" | "torch_dtype", _, Some(dtype))
                if level != Level::Deeper && matches!(first, b'"' | b'n') =>
            {
                self.splice.replace(span, format!("\"{}\"", dtype.name()));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::side_files::config::tests::LLAMA;

    fn rows(new: u64) -> Option<NewRows> {
        Some(NewRows { old: 32000, new })
    }

    #[test]
    fn a_rewrite_changes_the_asked_values_and_no_other_byte() {
        let rewritten = rewrite(LLAMA, rows(32007), Some(DType::BFloat16)).expect("a config");
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
        let rewritten = rewrite(text, rows(555), Some(DType::Float32)).expect("a config");
        assert_eq!(rewritten.text, expected);
    }

    #[test]
    fn an_absent_vocab_size_is_reported_and_not_invented() {
        for text in ["{}", r#"{"vocab_size": null}"#, r#"{"vocab_size": NaN, "text_config": 3}"#] {
            let rewritten = rewrite(text, rows(5), None).expect("a config");
            assert_eq!(rewritten, Rewritten { text: text.into(), lacks_vocab_size: true });
        }
        assert!(!rewrite("{}", None, None).expect("a config").lacks_vocab_size);
    }

    #[test]
    fn every_vocab_size_that_gives_the_old_rows_gets_the_new_at_any_depth() {
        // InternVL and GPT-NeoX megatron spellings; sizes of other things stay.
        let text = r#"{"vocab_size": 31990, "padded_vocab_size": 32000, "type_vocab_size": 2,
            "llm_config": {"vocab_size": 32000, "parts": [{"src_vocab_size": 32000}]},
            "vision_config": {"vocab_size": 8192}, "vocab_size_per_layer_input": 32000,
            "text": "vocab_size: 32000", "vocab_sizes": 32000, "audio_vocab_size": "32000"}"#;
        let expected = r#"{"vocab_size": 32010, "padded_vocab_size": 32010, "type_vocab_size": 2,
            "llm_config": {"vocab_size": 32010, "parts": [{"src_vocab_size": 32010}]},
            "vision_config": {"vocab_size": 8192}, "vocab_size_per_layer_input": 32000,
            "text": "vocab_size: 32000", "vocab_sizes": 32000, "audio_vocab_size": "32000"}"#;
        let rewritten = rewrite(text, rows(32010), None).expect("a config");
        assert_eq!(rewritten, Rewritten { text: expected.into(), lacks_vocab_size: false });
    }

    #[test]
    fn a_vocab_size_deep_inside_is_one_that_was_set() {
        let text = r#"{"llm_config": {"vocab_size": 32000}}"#;
        assert!(!rewrite(text, rows(32010), None).expect("a config").lacks_vocab_size);
    }

    #[test]
    fn what_lies_too_deep_stays() {
        let text = format!("{{\"a\":{}1{}}}", "{\"vocab_size\":".repeat(90), "}".repeat(90));
        assert_eq!(rewrite(&text, rows(5), None).expect("a config").text, text);
    }
}

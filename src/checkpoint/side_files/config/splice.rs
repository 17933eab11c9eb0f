//! Replaces and adds values in a JSON text; every other byte stays.

use std::ops::Range;

use serde_json::value::RawValue;

use crate::checkpoint::side_files::config::fields::{Fields, span_in};

/// A text and what is to be put into it.
pub(crate) struct Splice<'a> {
    text: &'a str,
    edits: Vec<(Range<usize>, String)>,
}

impl<'a> Splice<'a> {
    /// Nothing yet.
    pub(crate) fn new(text: &'a str) -> Splice<'a> {
        Splice { text, edits: Vec::new() }
    }

    /// Puts `new` in the place of what stands at `place`; places don't overlap.
    pub(crate) fn replace(&mut self, place: Range<usize>, new: String) {
        self.edits.push((place, new));
    }

    /// Puts entries at the end of an object or list that stands at `place`; false where none does.
    pub(crate) fn append(&mut self, place: Range<usize>, entries: &[String]) -> bool {
        let Some(value) = self.text.get(place.clone()) else { return false };
        let (Some(open @ ('{' | '[')), true) = (value.chars().next(), value.len() >= 2) else {
            return false;
        };
        let inner = value.get(1..value.len() - 1).unwrap_or_default();
        let filled = inner.trim_end();
        let at = place.start + open.len_utf8() + filled.len();
        if !entries.is_empty() {
            let comma = if filled.is_empty() { "" } else { "," };
            self.replace(at..at, format!("{comma}\n{}", entries.join(",\n")));
        }
        true
    }

    /// The new text.
    pub(crate) fn finish(mut self) -> String {
        self.edits.sort_by_key(|(place, _)| place.start);
        let added: usize = self.edits.iter().map(|(_, new)| new.len()).sum();
        let mut out = String::with_capacity(self.text.len() + added);
        let mut done = 0;
        for (place, new) in self.edits {
            out.push_str(self.text.get(done..place.start).unwrap_or_default());
            out.push_str(&new);
            done = place.end;
        }
        out.push_str(self.text.get(done..).unwrap_or_default());
        out
    }
}

/// Where the value of a key stands in `text`, an object in it being `object`; the last one of that
/// name.
pub(crate) fn place_of(text: &str, object: &str, key: &str) -> Option<Range<usize>> {
    let fields = Fields::parse(object).ok()?;
    let raw: &RawValue = fields.0.iter().rev().find(|(name, _)| name == key)?.1;
    span_in(text, raw.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_last_and_nothing_else_changes() {
        let text = r#"{"a": [1 ], "b": {"c": {}, "d": { "x": 1 }}, "e": null}"#;
        let mut splice = Splice::new(text);
        assert!(
            splice.append(place_of(text, text, "a").unwrap(), &["2".to_owned(), "3".to_owned()])
        );
        let b = place_of(text, text, "b").unwrap();
        let inner = |key: &str| place_of(text, &text[b.clone()], key).unwrap();
        assert!(splice.append(inner("c"), &[r#""y": 2"#.to_owned()]));
        assert!(splice.append(inner("d"), &[]));
        assert!(!splice.append(place_of(text, text, "e").unwrap(), &["1".to_owned()]));
        assert_eq!(place_of(text, text, "z"), None);
        assert_eq!(
            splice.finish(),
            "{\"a\": [1,\n2,\n3 ], \"b\": {\"c\": {\n\"y\": 2}, \"d\": { \"x\": 1 }}, \"e\": null}"
        );
    }
}

//! Parses a JSON object into fields whose values are slices of its text.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{Error, Kind, Result};

/// Keys under which a multimodal model's config has that of its language model.
const LANGUAGE_MODELS: [&str; 4] =
    ["text_config", "llm_config", "language_config", "thinker_config"];

/// Deepest level at which the language model's config is looked for.
const DEEPEST: usize = 4;

/// The fields of one object, in order; values borrow from the text.
pub(crate) struct Fields<'a>(pub(crate) Vec<(String, &'a RawValue)>);

impl<'a> Fields<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Fields<'a>> {
        serde_json::from_str(text).map_err(unusable)
    }

    /// The last one of this name, as Python takes it.
    pub(super) fn raw(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.get())
    }

    /// The value of that field; `None` where it has another type.
    pub(crate) fn get<T: Deserialize<'a>>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.raw(name)?).ok()
    }

    /// These fields and those of the language model's configs inside, outermost first.
    pub(crate) fn language_models(self) -> Vec<Fields<'a>> {
        let mut all = vec![self];
        while let Some(inner) = all.last().and_then(Fields::language_model)
            && all.len() < DEEPEST
        {
            all.push(inner);
        }
        all
    }

    fn language_model(&self) -> Option<Fields<'a>> {
        LANGUAGE_MODELS.iter().find_map(|name| self.get(name))
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

/// The range of `part`, a slice of `whole`.
pub(crate) fn span_in(whole: &str, part: &str) -> Option<Range<usize>> {
    let start = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    let end = start.checked_add(part.len())?;
    (end <= whole.len()).then_some(start..end)
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err hands it over")]
pub(super) fn unusable(error: serde_json::Error) -> Error {
    Error::new(Kind::Data, "config is not usable").expected("a JSON object", error.to_string())
}

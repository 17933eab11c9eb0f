//! The keys of a mapping in a recipe: known ones read as what they must be, others refused by name.

use crate::error::{Error, Kind};
use crate::recipe::yaml::{Field, Node, Value};
use crate::tensor::escape;

/// A mapping and where it stands.
pub(crate) struct Fields<'n> {
    /// The way to it, `slices[0].sources[1]`; empty at the top.
    place: String,
    line: usize,
    fields: &'n [Field],
}

/// A value and where it stands.
#[derive(Clone)]
pub(crate) struct At<'n> {
    /// The way to it.
    pub(crate) place: String,
    /// The line of its key, or its own in a list.
    pub(crate) line: usize,
    pub(crate) node: &'n Node,
}

/// What is wrong at a line.
pub(crate) fn wrong(line: usize, what: &str) -> Error {
    Error::new(Kind::Usage, format!("line {line}: {what}"))
}

impl<'n> Fields<'n> {
    /// The mapping at the top, with no other keys than these.
    pub(crate) fn top(node: &'n Node, known: &[&str]) -> Result<Fields<'n>, Error> {
        At { place: String::new(), line: node.line, node }.fields(known)
    }

    /// No keys.
    pub(crate) fn empty(line: usize) -> Fields<'n> {
        Fields { place: String::new(), line, fields: &[] }
    }

    /// The line of its key, or its own at the top.
    pub(crate) fn line(&self) -> usize {
        self.line
    }

    /// The way to a key of it.
    pub(crate) fn place_of(&self, key: &str) -> String {
        if self.place.is_empty() { key.to_owned() } else { format!("{}.{key}", self.place) }
    }

    /// The value of a key; `None` where it is missing or null.
    pub(crate) fn get(&self, key: &str) -> Option<At<'n>> {
        let field = self.fields.iter().find(|field| field.key == key)?;
        let at = At { place: self.place_of(key), line: field.line, node: &field.node };
        Some(at).filter(|at| !at.node.is_null())
    }

    /// The value of a key that must be there.
    pub(crate) fn needed(&self, key: &str) -> Result<At<'n>, Error> {
        let missing = || wrong(self.line, &format!("`{}` is missing", escape(&self.place_of(key))));
        self.get(key).ok_or_else(missing)
    }
}

impl<'n> At<'n> {
    /// An error about it.
    pub(crate) fn wrong(&self, expected: &str) -> Error {
        let found = match &self.node.value {
            Value::Scalar { text, .. } => format!("`{}`", escape(text)),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        };
        let what = format!("`{}` is wrong", escape(&self.place));
        wrong(self.line, &what).expected(expected, found)
    }

    /// An error about it that needs no `expected`.
    pub(crate) fn refused(&self, why: &str) -> Error {
        wrong(self.line, &format!("`{}` {why}", escape(&self.place)))
    }

    /// It as a mapping with no other keys than these.
    pub(crate) fn fields(&self, known: &[&str]) -> Result<Fields<'n>, Error> {
        let Value::Map(fields) = &self.node.value else {
            return Err(match self.place.is_empty() {
                true => wrong(self.line, "no recipe").expected("a mapping", "something else"),
                false => self.wrong("a mapping"),
            });
        };
        let found = Fields { place: self.place.clone(), line: self.line, fields };
        if let Some(other) = fields.iter().find(|field| !known.contains(&field.key.as_str())) {
            let what = format!("`{}` is not supported", escape(&found.place_of(&other.key)));
            let hint = format!("known here: {}", known.join(", "));
            return Err(wrong(other.line, &what).with_hint(hint));
        }
        Ok(found)
    }

    /// It as a list.
    pub(crate) fn list(&self) -> Result<Vec<At<'n>>, Error> {
        let Value::List(nodes) = &self.node.value else { return Err(self.wrong("a list")) };
        let at = |(position, node): (usize, &'n Node)| At {
            place: format!("{}[{position}]", self.place),
            line: node.line,
            node,
        };
        Ok(nodes.iter().enumerate().map(at).collect())
    }

    /// It as text.
    pub(crate) fn text(&self) -> Result<&'n str, Error> {
        match &self.node.value {
            Value::Scalar { text, .. } if !text.is_empty() => Ok(text),
            _ => Err(self.wrong("text")),
        }
    }

    /// It as a finite number.
    pub(crate) fn number(&self) -> Result<f64, Error> {
        match &self.node.value {
            Value::Scalar { text, plain: true } => {
                text.parse().ok().filter(|x: &f64| x.is_finite())
            }
            _ => None,
        }
        .ok_or_else(|| self.wrong("a number"))
    }

    /// It as a whole number, 0 or more.
    pub(crate) fn whole(&self) -> Result<u64, Error> {
        match &self.node.value {
            Value::Scalar { text, plain: true } => text.parse().ok(),
            _ => None,
        }
        .ok_or_else(|| self.wrong("a whole number, 0 or more"))
    }

    /// It as one of some words; what the word stands for.
    pub(crate) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, Error> {
        let text = self.text()?;
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let known = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        known.ok_or_else(|| self.wrong(&names.join(", ")))
    }
}

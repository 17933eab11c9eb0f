//! `Pickle`: what a pickle holds, as flat data in an arena of small values that refer to each other
//! by number.
//!
//! Sharing costs nothing, cycles leak nothing, and dropping is a few vectors, never a recursion.
//! Strings stay in the pickle's own bytes. A call (`REDUCE`) is kept as a record of the function's
//! name and its arguments: [`crate::format::torch::collect`] reads tensors out of those records.

use std::borrow::Cow;

use crate::format::torch::pickle::blocks::Blocks;
use crate::format::torch::pickle::budget::Room;
use crate::format::torch::pickle::names::globals::Global;
use crate::format::torch::pickle::names::opaque::OpaqueNames;

/// Names a value by its number in its [`Pickle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ref(pub(super) u32);

impl Ref {
    /// Its number, from 0.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A run of the pickle's bytes or of [`Arena::items`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(super) start: u32,
    pub(super) len: u32,
}

/// One value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of up to 64 bits.
    Int(i64),
    /// An integer of up to 128 bits, by its number in [`Arena::long`].
    Long(u32),
    /// Text that lies in the pickle as it is, checked to be UTF-8.
    Text(Span),
    /// Text that was written with escapes, by its number in [`Arena::decoded`].
    Decoded(u32),
    /// A value of which only the kind is kept: float, bytes, an integer above 128 bits.
    Atom(Atom),
    /// A tuple, as a run of [`Arena::items`].
    Tuple(Span),
    /// A list, by its number.
    List(u32),
    /// A dict, by its number.
    Dict(u32),
    /// A set; nothing we read looks into one.
    Set,
    /// A global of the table.
    Global(Global),
    /// A call or construction that was not made: the function and its argument tuple.
    Call {
        /// The function or class.
        function: Global,
        /// A tuple.
        arguments: Ref,
    },
    /// A persistent id: the value that names a storage.
    Persistent(Ref),
}

/// Kinds of values of which only the kind is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Atom {
    /// A float.
    Float,
    /// Bytes, or a Python 2 string that is not UTF-8.
    Bytes,
    /// An integer of more than 128 bits.
    HugeInt,
}

/// A dict as the pickle filled it: pairs in order of arrival, repeated keys kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dict {
    /// Key and value of every `SETITEM`.
    pub(crate) pairs: Vec<(Ref, Ref)>,
    /// Whether it is an `OrderedDict`, the one object that may have a state.
    pub(super) ordered: bool,
}

/// All values of one pickle.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    pub(super) values: Blocks<Value>,
    /// Nesting of each value, counted from its leaves when it was made.
    pub(super) depths: Blocks<u8>,
    /// The items of tuples, as runs.
    pub(super) items: Blocks<Ref>,
    pub(super) lists: Blocks<Vec<Ref>>,
    pub(super) dicts: Blocks<Dict>,
    pub(super) long: Blocks<i128>,
    pub(super) decoded: Blocks<Box<str>>,
    /// What opaque values and sets hold beside their arguments: the value and one part of it.
    pub(super) attached: Blocks<(Ref, Ref)>,
}

/// A pickle that was read to its `STOP`.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) arena: Arena,
    pub(super) root: Ref,
    pub(super) length: usize,
    pub(super) budget: u64,
    pub(super) opaque: &'a OpaqueNames,
    pub(super) foreign: Vec<Global>,
}

impl<'a> Pickle<'a> {
    /// The value at `STOP`.
    pub(crate) fn root(&self) -> Ref {
        self.root
    }

    /// Bytes from the start to `STOP`, included.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Memory that tensors or storages made of the values may take: as much as the values.
    pub(crate) fn room(&self) -> Room {
        Room::new(self.budget)
    }

    /// The value of a reference. References are of their own arena: the fallback is never taken.
    pub(crate) fn get(&self, reference: Ref) -> Value {
        self.arena.get(reference)
    }

    /// All values in the order in which they were made.
    pub(crate) fn values(&self) -> impl Iterator<Item = Value> + '_ {
        self.arena.values.iter().copied()
    }

    /// The names met that torch's list lacks, each once.
    pub(crate) fn foreign(&self) -> &[Global] {
        &self.foreign
    }

    /// `module.name` of such a name.
    pub(crate) fn full_name(&self, global: Global) -> String {
        match global {
            Global::Given(at) => self.opaque.get(at).to_owned(),
            _ => global.to_string(),
        }
    }

    /// What opaque values and sets hold beside their arguments, in order of arrival.
    pub(crate) fn attached(&self) -> impl Iterator<Item = (Ref, Ref)> + '_ {
        self.arena.attached.iter().copied()
    }

    /// How many values there are; every [`Ref::index`] is below it.
    pub(crate) fn count(&self) -> usize {
        self.arena.values.len()
    }

    /// The items of a tuple or list, else `None`.
    pub(crate) fn sequence(&self, value: Value) -> Option<&[Ref]> {
        match value {
            Value::Tuple(span) => self.arena.tuple(span),
            Value::List(index) => self.arena.lists.get(index as usize).map(Vec::as_slice),
            _ => None,
        }
    }

    /// The items of a tuple, else `None`.
    pub(crate) fn tuple(&self, reference: Ref) -> Option<&[Ref]> {
        match self.get(reference) {
            Value::Tuple(span) => self.arena.tuple(span),
            _ => None,
        }
    }

    /// The pairs of a dict, else `None`.
    pub(crate) fn dict(&self, reference: Ref) -> Option<&[(Ref, Ref)]> {
        match self.get(reference) {
            Value::Dict(index) => self.arena.dicts.get(index as usize).map(|d| d.pairs.as_slice()),
            _ => None,
        }
    }

    /// The text of a string, else `None`.
    pub(crate) fn text(&self, reference: Ref) -> Option<&str> {
        self.arena.text(self.bytes, self.get(reference))
    }

    /// Whether a value is a tensor of any kind, or a bare storage: what must not be skipped silently.
    pub(crate) fn is_tensor(&self, reference: Ref) -> bool {
        match self.get(reference) {
            Value::Call { function, .. } => function.makes_tensor(),
            Value::Persistent(_) => true,
            _ => false,
        }
    }

    /// An integer as i128, where it is one.
    pub(crate) fn long(&self, reference: Ref) -> Option<i128> {
        match self.get(reference) {
            Value::Int(value) => Some(i128::from(value)),
            Value::Long(index) => self.arena.long.get(index as usize).copied(),
            _ => None,
        }
    }

    /// A value in a few words, for messages.
    pub(crate) fn describe(&self, reference: Ref) -> Cow<'static, str> {
        let value = self.get(reference);
        match value {
            Value::None => "None".into(),
            Value::Bool(_) => "a bool".into(),
            Value::Int(value) => format!("the integer {value}").into(),
            Value::Long(_) | Value::Atom(Atom::HugeInt) => "a long integer".into(),
            Value::Text(_) | Value::Decoded(_) => "a string".into(),
            Value::Atom(Atom::Float) => "a float".into(),
            Value::Atom(Atom::Bytes) => "bytes".into(),
            Value::Tuple(span) => format!("a tuple of {}", span.len).into(),
            Value::List(_) => "a list".into(),
            Value::Dict(_) => "a dict".into(),
            Value::Set => "a set".into(),
            Value::Global(global) => format!("the name `{global}`").into(),
            Value::Call { function: Global::Given(at), .. } => {
                format!("an object made by `{}`", self.opaque.get(at)).into()
            }
            Value::Call { function, .. } => format!("an object made by `{function}`").into(),
            Value::Persistent(_) => "a storage".into(),
        }
    }
}

impl Arena {
    pub(super) fn get(&self, reference: Ref) -> Value {
        self.values.get(reference.0 as usize).copied().unwrap_or(Value::None)
    }

    pub(super) fn tuple(&self, span: Span) -> Option<&[Ref]> {
        self.items.run(span.start as usize, span.len as usize)
    }

    pub(super) fn text<'s>(&'s self, bytes: &'s [u8], value: Value) -> Option<&'s str> {
        match value {
            Value::Text(span) => {
                let start = span.start as usize;
                let text = bytes.get(start..start.checked_add(span.len as usize)?)?;
                std::str::from_utf8(text).ok()
            }
            Value::Decoded(index) => self.decoded.get(index as usize).map(AsRef::as_ref),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_takes_sixteen_bytes() {
        assert_eq!(size_of::<Value>(), 16);
    }
}

//! `Machine`: the state of the pickle machine (stack, memo, bytes left), its bounds and its errors.

use std::collections::HashMap;

use crate::format::bytes::Cursor;
use crate::format::error::{FormatError, Rule};
use crate::format::torch::pickle::blocks::Blocks;
use crate::format::torch::pickle::names::globals::Global;
use crate::format::torch::pickle::names::opaque::{OpaqueName, OpaqueNames};
use crate::format::torch::pickle::value::{Arena, Ref, Span, Value};
use crate::tensor::{counted, escape};

/// Longest pickle, in bytes: some 250,000 tensors. Positions in it are kept in 32 bits.
pub(crate) const MAX_PICKLE_BYTES: u64 = 48 << 20;

/// Deepest nesting of containers and of marks. State dicts with optimizer states use about ten.
pub(super) const MAX_DEPTH: u8 = 64;

/// Advice where a file names what could run code.
pub(super) const MAY_RUN_CODE: &str = "loading this file in Python could run code; nothing was run \
     here. If you trust it, load it with torch and save only its state dict";

/// Longest argument that is a line of text.
const MAX_LINE_BYTES: usize = 1 << 20;

/// What `PUT` keeps: picklers count slots from 0 up, but any number is legal.
#[derive(Debug, Default)]
pub(super) struct Memo {
    /// Slots 0 to its length.
    dense: Blocks<Ref>,
    /// Slots that were set out of sequence.
    sparse: HashMap<u32, Ref>,
}

impl Memo {
    /// Slots that are set.
    pub(super) fn len(&self) -> usize {
        self.dense.len().saturating_add(self.sparse.len())
    }

    /// Bytes that it takes. A map's slot has nine, an eighth of them stay empty, and while the map
    /// grows the old half is there beside it.
    pub(super) fn bytes(&self) -> usize {
        self.dense.bytes().saturating_add(self.sparse.capacity().saturating_mul(16))
    }

    /// The value of a slot, where it is set.
    pub(super) fn get(&self, slot: u32) -> Option<Ref> {
        let dense = self.dense.get(slot as usize).copied();
        // Pickles without odd slots never look into the map.
        if self.sparse.is_empty() { dense } else { self.sparse.get(&slot).copied().or(dense) }
    }

    /// Sets a slot.
    pub(super) fn set(&mut self, slot: u32, value: Ref) {
        if let Some(old) = self.dense.get_mut(slot as usize) {
            *old = value;
        } else if slot as usize == self.dense.len() && self.sparse.is_empty() {
            self.dense.push(value);
        } else {
            self.sparse.insert(slot, value);
        }
    }
}

/// The bytes of a pickle and where they come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// The bytes at hand, from the pickle's first on.
    pub(crate) bytes: &'a [u8],
    /// Bytes from the first to the end of the file, at hand or not.
    pub(crate) total: u64,
    /// Byte position of the first in what the messages count from.
    pub(crate) base: u64,
    /// What messages call the pickle.
    pub(crate) what: &'a str,
    /// Length of the whole file: it bounds the memory that the pickle may take.
    pub(crate) file_bytes: u64,
    /// Names that the user allows beside the tensors.
    pub(crate) opaque: &'a OpaqueNames,
}

/// The state of the machine.
pub(super) struct Machine<'a> {
    pub(super) source: Source<'a>,
    pub(super) cursor: Cursor<'a>,
    /// Position of the opcode that runs.
    pub(super) at: usize,
    pub(super) stack: Vec<Ref>,
    pushes: usize,
    /// Bytes of the blocks of lists, dicts and decoded texts.
    pub(super) held_bytes: usize,
    /// Whether the file has the bytes that were missing, and they only are not at hand.
    pub(super) starved: bool,
    pub(super) marks: Vec<usize>,
    pub(super) memo: Memo,
    pub(super) arena: Arena,
    /// Keys and items of states that were checked.
    pub(super) state_items: usize,
    /// The names met that torch's list lacks, each once.
    pub(super) foreign: Vec<Global>,
}

// Values that every pickle shares, made by `Machine::new` in this order.
pub(super) const NONE: Ref = Ref(0);
pub(super) const TRUE: Ref = Ref(1);
pub(super) const FALSE: Ref = Ref(2);
pub(super) const EMPTY_TUPLE: Ref = Ref(3);

/// Values that every pickle has before its first opcode.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) const SHARED_VALUES: usize = 4 + 256;

/// The shared value of a small integer: sizes, strides and offsets are full of them.
pub(super) fn small(number: u8) -> Ref {
    Ref(u32::from(number).saturating_add(EMPTY_TUPLE.0).saturating_add(1))
}

impl<'a> Machine<'a> {
    /// A machine before its first opcode.
    pub(super) fn new(source: Source<'a>) -> Machine<'a> {
        let mut arena = Arena::default();
        let shared = [
            Value::None,
            Value::Bool(true),
            Value::Bool(false),
            Value::Tuple(Span { start: 0, len: 0 }),
        ];
        for value in shared.into_iter().chain((0..=u8::MAX).map(|n| Value::Int(i64::from(n)))) {
            arena.values.push(value);
            arena.depths.push(0);
        }
        Machine {
            source,
            cursor: Cursor::new(source.bytes),
            at: 0,
            stack: Vec::new(),
            pushes: 0,
            held_bytes: 0,
            starved: false,
            marks: Vec::new(),
            memo: Memo::default(),
            arena,
            state_items: 0,
            foreign: Vec::new(),
        }
    }

    // ---- stack

    /// Height of the stack at the last mark: nothing below it may be taken.
    pub(super) fn fence(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    pub(super) fn top(&self) -> Result<Ref, FormatError> {
        match self.stack.last() {
            Some(top) if self.stack.len() > self.fence() => Ok(*top),
            _ => Err(self.broken("a value on the stack", "none")),
        }
    }

    pub(super) fn pop(&mut self) -> Result<Ref, FormatError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    pub(super) fn pop_mark(&mut self) -> Result<Vec<Ref>, FormatError> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => Err(self.broken("a mark on the stack", "none")),
        }
    }

    pub(super) fn push_ref(&mut self, reference: Ref) -> Result<(), FormatError> {
        self.pushes = self.pushes.saturating_add(1);
        if self.stack.len() == self.stack.capacity() {
            // It is about to be doubled.
            self.check_growth(self.stack.capacity().saturating_mul(2 * size_of::<Ref>()))?;
        }
        self.stack.push(reference);
        self.check_memory(self.pushes)
    }

    pub(super) fn push(&mut self, value: Value, depth: u8) -> Result<(), FormatError> {
        let reference = Ref(self.index(self.arena.values.len())?);
        self.arena.values.push(value);
        self.arena.depths.push(depth);
        self.push_ref(reference)
    }

    /// Depth of a container over `items`.
    pub(super) fn depth_over(
        &self,
        items: impl IntoIterator<Item = Ref>,
    ) -> Result<u8, FormatError> {
        let depth_of = |item: Ref| self.arena.depths.get(item.0 as usize).copied().unwrap_or(0);
        let deepest = items.into_iter().map(depth_of).max().unwrap_or(0);
        match deepest.checked_add(1) {
            Some(depth) if depth <= MAX_DEPTH => Ok(depth),
            _ => Err(self.limit(format!("values nested at most {MAX_DEPTH} deep"), "deeper")),
        }
    }

    pub(super) fn deepen(&mut self, container: Ref, items: &[Ref]) -> Result<(), FormatError> {
        let depth = self.depth_over(items.iter().copied())?;
        if let Some(own) = self.arena.depths.get_mut(container.0 as usize) {
            *own = depth.max(*own);
        }
        Ok(())
    }

    // ---- bytes

    pub(super) fn left(&self) -> u64 {
        self.source.total.saturating_sub(self.cursor.position() as u64)
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], FormatError> {
        match self.cursor.take(count) {
            Some(bytes) => Ok(bytes),
            None => Err(self.too_long(count as u64, self.left())),
        }
    }

    pub(super) fn take_u64(&mut self, count: u64) -> Result<&'a [u8], FormatError> {
        match usize::try_from(count) {
            Ok(count) => self.take(count),
            Err(_) => Err(self.too_long(count, self.left())),
        }
    }

    pub(super) fn line(&mut self) -> Result<&'a [u8], FormatError> {
        match self.cursor.line() {
            Some(line) => Ok(line),
            None if self.cursor.left() >= MAX_LINE_BYTES => {
                Err(self.limit("lines of at most 1 MiB", "a longer one"))
            }
            None => Err(self.too_long(self.cursor.left() as u64, self.left())),
        }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        match self.cursor.array() {
            Some(bytes) => Ok(bytes),
            None => Err(self.too_long(N as u64, self.left())),
        }
    }

    pub(super) fn u8(&mut self) -> Result<u8, FormatError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn length_i32(&mut self) -> Result<u64, FormatError> {
        let length = self.array().map(i32::from_le_bytes)?;
        u64::try_from(length).map_err(|_| self.broken("a length", format!("{length}")))
    }

    // ---- errors

    pub(super) fn index(&self, position: usize) -> Result<u32, FormatError> {
        u32::try_from(position).map_err(|_| self.limit("at most 4 GiB of values", "more"))
    }

    pub(super) fn error(&self, rule: Rule, expected: String, found: String) -> FormatError {
        let at = self.source.base.saturating_add(self.at as u64);
        FormatError::new(rule, self.source.what, expected, found).at(at)
    }

    pub(super) fn broken(
        &self,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> FormatError {
        self.error(Rule::Pickle, expected.into(), found.into())
    }

    pub(super) fn limit(
        &self,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> FormatError {
        self.error(Rule::PickleLimit, expected.into(), found.into())
    }

    pub(super) fn unsupported(
        &self,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> FormatError {
        self.error(Rule::Unsupported, expected.into(), found.into())
    }

    /// The refusal where more bytes are needed than are at hand, or than the file has.
    pub(super) fn too_long(&mut self, needed: u64, left: u64) -> FormatError {
        let end = (self.cursor.position() as u64).saturating_add(needed);
        if needed <= left && end > MAX_PICKLE_BYTES {
            return self.limit("a pickle of at most 48 MiB", format!("a value of {needed} bytes"));
        }
        self.starved = (self.source.bytes.len() as u64) < self.source.total && needed <= left;
        let expected = counted(needed.max(1), "more byte");
        self.error(Rule::Truncated, expected, format!("{left} left"))
    }

    pub(super) fn forbidden(&self, module: &[u8], name: &[u8]) -> FormatError {
        let full = format!("{}.{}", String::from_utf8_lossy(module), String::from_utf8_lossy(name));
        let found = format!("`{}`", escape(&full));
        let hint = match OpaqueName::parse(&full) {
            Ok(_) => format!(
                "nothing of it was run. If it stands beside the weights, `--opaque {full}` leaves it \
                 out; else load the file with torch and save only its state dict"
            ),
            Err(_) => MAY_RUN_CODE.to_owned(),
        };
        self.error(Rule::ForbiddenGlobal, "names that tensors need".to_owned(), found).hint(hint)
    }

    pub(super) fn kind(&self, reference: Ref) -> String {
        match self.arena.get(reference) {
            Value::Global(global) => format!("the name `{global}`"),
            Value::Call { function, .. } => format!("an object made by `{function}`"),
            Value::Persistent(_) => "a storage".to_owned(),
            Value::Tuple(_) => "a tuple".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Dict(_) => "a dict".to_owned(),
            Value::Set => "a set".to_owned(),
            _ => "a plain value".to_owned(),
        }
    }

    pub(super) fn expect(
        &self,
        reference: Ref,
        expected: &str,
        test: impl Fn(Value) -> bool,
    ) -> Result<(), FormatError> {
        if test(self.arena.get(reference)) {
            Ok(())
        } else {
            Err(self.broken(expected, self.kind(reference)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memo_keeps_slots_in_any_order() {
        let mut memo = Memo::default();
        for (slot, value) in [(0, 10), (1, 11), (u32::MAX, 12), (2, 13), (0, 14), (2, 15)] {
            memo.set(slot, Ref(value));
        }
        let slots = [0, 1, 2, 3, u32::MAX].map(|slot| memo.get(slot).map(|value| value.0));
        assert_eq!(slots, [Some(14), Some(11), Some(15), None, Some(12)]);
        assert_eq!(memo.len(), 4);
    }
}

//! Carries out the opcodes for containers, memo, names and calls.

use crate::format::error::FormatError;
use crate::format::torch::pickle::names::globals::Global;
use crate::format::torch::pickle::opaque_values::is_builder;
use crate::format::torch::pickle::opcode::Opcode;
use crate::format::torch::pickle::stack::{EMPTY_TUPLE, Machine};
use crate::format::torch::pickle::text;
use crate::format::torch::pickle::value::{Dict, Ref, Span, Value};
use crate::tensor::{counted, escape};

impl Machine<'_> {
    pub(super) fn tuple_of(&mut self, count: usize) -> Result<(), FormatError> {
        let at = self.stack.len().checked_sub(count).filter(|at| *at >= self.fence());
        let Some(at) = at else {
            return Err(
                self.broken(format!("{} for a tuple", counted(count as u64, "value")), "fewer")
            );
        };
        let items = self.stack.split_off(at);
        self.push_tuple(&items)
    }

    pub(super) fn push_tuple(&mut self, items: &[Ref]) -> Result<(), FormatError> {
        if items.is_empty() {
            return self.push_ref(EMPTY_TUPLE);
        }
        let depth = self.depth_over(items.iter().copied())?;
        let len = self.index(items.len())?;
        let start = self.arena.items.push_run(items);
        let start = self.index(start)?;
        self.push(Value::Tuple(Span { start, len }), depth)
    }

    pub(super) fn push_list(&mut self, items: Vec<Ref>) -> Result<(), FormatError> {
        let depth = self.depth_over(items.iter().copied())?;
        let index = self.index(self.arena.lists.len())?;
        self.hold(0, items.capacity(), size_of::<Ref>())?;
        self.arena.lists.push(items);
        self.push(Value::List(index), depth)
    }

    pub(super) fn push_dict(&mut self, dict: Dict) -> Result<(), FormatError> {
        let depth = self.depth_over(dict.pairs.iter().flat_map(|(key, value)| [*key, *value]))?;
        let index = self.index(self.arena.dicts.len())?;
        self.hold(0, dict.pairs.capacity(), 2 * size_of::<Ref>())?;
        self.arena.dicts.push(dict);
        self.push(Value::Dict(index), depth)
    }

    pub(super) fn append(&mut self, items: &[Ref]) -> Result<(), FormatError> {
        let list = self.top()?;
        let index = match self.arena.get(list) {
            Value::List(index) => index,
            // A deque, or another program's list.
            Value::Call { function, .. } if function.is_foreign() => {
                return self.attach(list, items);
            }
            _ => return Err(self.broken("a list to append to", self.kind(list))),
        };
        self.deepen(list, items)?;
        let Some(list) = self.arena.lists.get_mut(index as usize) else { return Ok(()) };
        let before = list.capacity();
        list.extend_from_slice(items);
        let after = list.capacity();
        self.hold(before, after, size_of::<Ref>())
    }

    pub(super) fn set_items(&mut self, items: &[Ref]) -> Result<(), FormatError> {
        let dict = self.top()?;
        let pairs = items.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return Err(self.broken("keys with values", "an odd number of items"));
        }
        let index = match self.arena.get(dict) {
            Value::Dict(index) => index,
            // A defaultdict, or another program's dict.
            Value::Call { function, .. } if function.is_foreign() => {
                return self.attach(dict, items);
            }
            _ => return Err(self.broken("a dict to set items of", self.kind(dict))),
        };
        self.deepen(dict, items)?;
        let Some(dict) = self.arena.dicts.get_mut(index as usize) else { return Ok(()) };
        let before = dict.pairs.capacity();
        dict.pairs.extend(pairs.filter_map(|pair| Some((*pair.first()?, *pair.last()?))));
        let after = dict.pairs.capacity();
        self.hold(before, after, 2 * size_of::<Ref>())
    }

    pub(super) fn memo(&mut self, opcode: Opcode) -> Result<(), FormatError> {
        let slot = match opcode {
            Opcode::Memoize => self.index(self.memo.len())?,
            Opcode::BinPut | Opcode::BinGet => u32::from(self.u8()?),
            Opcode::LongBinPut | Opcode::LongBinGet => self.u32()?,
            _ => {
                let line = self.line()?;
                match text::slot(line) {
                    Some(slot) => slot,
                    None => return Err(self.broken("a memo slot", "something else")),
                }
            }
        };
        if matches!(opcode, Opcode::Get | Opcode::BinGet | Opcode::LongBinGet) {
            return match self.memo.get(slot) {
                Some(reference) => self.push_ref(reference),
                None => Err(self.broken("a memo slot that was set", format!("slot {slot}"))),
            };
        }
        let top = self.top()?;
        self.memo.set(slot, top);
        self.check_memory(self.memo.len())
    }

    pub(super) fn global(&mut self, module: &[u8], name: &[u8]) -> Result<(), FormatError> {
        let known = match (std::str::from_utf8(module), std::str::from_utf8(name)) {
            (Ok(module), Ok(name)) => self.known(module, name),
            _ => None,
        };
        let Some(global) = known else { return Err(self.forbidden(module, name)) };
        if global.is_foreign() && !is_builder(global) && !self.foreign.contains(&global) {
            self.foreign.push(global);
        }
        self.push(Value::Global(global), 0)
    }

    /// `REDUCE` (function and arguments) and `NEWOBJ` (class and arguments).
    pub(super) fn call(&mut self, reduce: bool) -> Result<(), FormatError> {
        let arguments = self.pop()?;
        let function = self.pop()?;
        let Value::Global(function) = self.arena.get(function) else {
            return Err(self.broken("a known function to call", self.kind(function)));
        };
        let Value::Tuple(span) = self.arena.get(arguments) else {
            return Err(self.broken("a tuple of arguments", self.kind(arguments)));
        };
        let first = self.arena.tuple(span).and_then(|items| items.first().copied());
        match function {
            Global::OrderedDict => self.ordered_dict(span.len, first),
            Global::Size => match (span.len, first) {
                (0, _) => self.push_ref(EMPTY_TUPLE),
                (1, Some(sizes)) => {
                    let sequence = |value| matches!(value, Value::Tuple(_) | Value::List(_));
                    self.expect(sizes, "a tuple of sizes", sequence)?;
                    self.push_ref(sizes)
                }
                _ => Err(self.broken("one argument of `Size`", format!("{}", span.len))),
            },
            Global::Inert(name) => self.inert_call(name, span, arguments, reduce),
            Global::DType(_) | Global::Storage(_) => {
                Err(self.unsupported("data", format!("a call of `{function}`")))
            }
            Global::Rebuild(_) | Global::OtherTensor(_) | Global::Tensor | Global::Parameter
                if !reduce =>
            {
                Err(self.unsupported("data", format!("a new object of `{function}`")))
            }
            _ => {
                let depth = self.depth_over([arguments])?;
                self.push(Value::Call { function, arguments }, depth)
            }
        }
    }

    /// `OrderedDict()` and, in Python 2 files, `OrderedDict([[key, value], ...])`.
    pub(super) fn ordered_dict(
        &mut self,
        count: u32,
        first: Option<Ref>,
    ) -> Result<(), FormatError> {
        let mut dict = Dict { ordered: true, ..Dict::default() };
        if let Some(first) = first {
            let sequence = |value| match value {
                Value::Tuple(span) => self.arena.tuple(span),
                Value::List(index) => self.arena.lists.get(index as usize).map(Vec::as_slice),
                _ => None,
            };
            let items = sequence(self.arena.get(first)).filter(|_| count == 1);
            let Some(items) = items else {
                return Err(self.broken("a list of pairs for `OrderedDict`", self.kind(first)));
            };
            // A pickle may pass the same list again and again.
            self.check_growth(items.len().saturating_mul(2 * size_of::<Ref>()))?;
            dict.pairs.reserve_exact(items.len());
            for item in items {
                match sequence(self.arena.get(*item)) {
                    Some(&[key, value]) => dict.pairs.push((key, value)),
                    _ => return Err(self.broken("a pair", self.kind(*item))),
                }
            }
        }
        self.push_dict(dict)
    }

    /// `BUILD`: the state of an opaque value, or the `_metadata` of an `OrderedDict`, which is dropped.
    pub(super) fn build(&mut self) -> Result<(), FormatError> {
        let state = self.pop()?;
        let object = self.top()?;
        if let Value::Call { function, .. } = self.arena.get(object)
            && function.is_foreign()
        {
            return self.opaque_state(object, state);
        }
        let dict = |value| match value {
            Value::Dict(index) => self.arena.dicts.get(index as usize),
            _ => None,
        };
        if !dict(self.arena.get(object)).is_some_and(|dict| dict.ordered) {
            return Err(self.unsupported("an object without a state", self.kind(object)));
        }
        let Some(state) = dict(self.arena.get(state)) else {
            return Err(self.unsupported("a dict as the state of an `OrderedDict`", "another"));
        };
        for (key, _) in &state.pairs {
            let name = self.arena.text(self.source.bytes, self.arena.get(*key));
            if name != Some("_metadata") {
                let found = format!("`{}`", escape(name.unwrap_or("?")));
                return Err(self.unsupported("only `_metadata` as the state of a dict", found));
            }
        }
        Ok(())
    }
}

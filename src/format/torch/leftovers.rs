//! Lists objects in a checkpoint that are skipped because torch's `weights_only` list lacks their
//! type, and any tensors reachable only through them, so that the user is told.

use std::collections::HashMap;

use crate::format::error::{FormatError, Rule};
use crate::format::state_dict::OpaqueValue;
use crate::format::torch::candidates::{Chosen, key_in_words};
use crate::format::torch::pickle::budget::Room;
use crate::format::torch::pickle::names::globals::Global;
use crate::format::torch::pickle::value::{Pickle, Ref, Value};
use crate::tensor::{counted, escape};

/// The opaque values below each entry, in the file's order, those of the state dict's entries first.
///
/// # Errors
/// [`Rule::Unsupported`] where an entry of the state dict holds tensors inside an opaque value: the
/// child would lack them.
pub(super) fn opaque_values(
    pickle: &Pickle<'_>,
    chosen: &Chosen<'_>,
    room: &mut Room,
) -> Result<Vec<OpaqueValue>, FormatError> {
    if pickle.foreign().is_empty() {
        return Ok(Vec::new());
    }
    Walk::new(pickle, room)?.run(chosen, room)
}

/// An entry of one of the dicts on the path to the state dict.
struct Entry {
    dict: usize,
    key: Ref,
}

struct Walk<'p> {
    pickle: &'p Pickle<'p>,
    /// What values hold beside their arguments, sorted by the value.
    attached: Vec<(Ref, Ref)>,
    seen: Vec<bool>,
    stack: Vec<Ref>,
}

impl<'p> Walk<'p> {
    fn new(pickle: &'p Pickle<'p>, room: &mut Room) -> Result<Walk<'p>, FormatError> {
        let attached = pickle.attached().count();
        let bytes = attached.saturating_mul(size_of::<(Ref, Ref)>());
        room.take(bytes.saturating_add(pickle.count()))?;
        let mut walk = Walk {
            pickle,
            attached: Vec::with_capacity(attached),
            seen: vec![false; pickle.count()],
            stack: Vec::new(),
        };
        walk.attached.extend(pickle.attached());
        walk.attached.sort_by_key(|pair| pair.0);
        Ok(walk)
    }

    fn run(
        &mut self,
        chosen: &Chosen<'_>,
        room: &mut Room,
    ) -> Result<Vec<OpaqueValue>, FormatError> {
        // Deepest first, so that a shared value counts as the state dict's.
        let dicts: Vec<Ref> = chosen.path.iter().map(|step| step.0).collect();
        for dict in &dicts {
            self.enter(*dict);
        }
        let mut opaque: Vec<(Entry, Ref)> = Vec::new();
        for (dict, reference) in dicts.iter().enumerate().rev() {
            for (key, value) in self.pickle.dict(*reference).unwrap_or_default() {
                let before = opaque.len();
                self.stack.extend([*value, *key]);
                self.visit(&mut |value| opaque.push((Entry { dict, key: *key }, value)));
                let grown = (opaque.len() - before).saturating_mul(2 * size_of::<(Entry, Ref)>());
                room.take(grown)?;
            }
        }
        self.name(&opaque, chosen, room)
    }

    /// Marks a value as seen; false if it was already.
    fn enter(&mut self, value: Ref) -> bool {
        match self.seen.get_mut(value.index()) {
            Some(seen) => !std::mem::replace(seen, true),
            None => false,
        }
    }

    /// Visits what is on the stack and everything below it; opaque values go to `meet` instead.
    fn visit(&mut self, meet: &mut dyn FnMut(Ref)) {
        while let Some(value) = self.stack.pop() {
            if !self.enter(value) {
                continue;
            }
            match self.pickle.get(value) {
                Value::Call { function, .. } | Value::Global(function) if function.is_foreign() => {
                    meet(value);
                }
                _ => self.push_parts(value),
            }
        }
    }

    /// Puts what a value holds on the stack.
    fn push_parts(&mut self, value: Ref) {
        let pickle = self.pickle;
        let content = pickle.get(value);
        match content {
            Value::Tuple(_) | Value::List(_) => {
                self.stack.extend(pickle.sequence(content).unwrap_or_default());
            }
            Value::Dict(_) => {
                let pairs = pickle.dict(value).unwrap_or_default();
                self.stack.extend(pairs.iter().flat_map(|(key, value)| [*key, *value]));
            }
            Value::Call { arguments, .. } => self.stack.push(arguments),
            _ => {}
        }
        let start = self.attached.partition_point(|pair| pair.0 < value);
        let parts = self.attached.iter().skip(start).take_while(|pair| pair.0 == value);
        self.stack.extend(parts.map(|pair| pair.1));
    }

    /// Names the opaque values by their entries, and counts the tensors that only they hold.
    fn name(
        &mut self,
        opaque: &[(Entry, Ref)],
        chosen: &Chosen<'_>,
        room: &mut Room,
    ) -> Result<Vec<OpaqueValue>, FormatError> {
        let mut found: Vec<OpaqueValue> = Vec::new();
        let mut places: HashMap<(usize, Ref, Global), usize> = HashMap::new();
        let mut entries = vec![String::new()];
        for step in chosen.path.iter().skip(1) {
            let above = entries.last().cloned().unwrap_or_default();
            entries.push(format!("{above}{}.", step.1));
        }
        for (entry, value) in opaque {
            let global = self.name_of(*value);
            let mut names = vec![global];
            let mut tensors = 0usize;
            self.push_parts(*value);
            while let Some(part) = self.stack.pop() {
                if !self.enter(part) {
                    continue;
                }
                if self.pickle.is_tensor(part) {
                    tensors = tensors.saturating_add(1);
                    continue;
                }
                if let Value::Call { function, .. } | Value::Global(function) =
                    self.pickle.get(part)
                    && function.is_foreign()
                    && !names.contains(&Some(function))
                {
                    names.push(Some(function));
                }
                self.push_parts(part);
            }
            if tensors > 0 && entry.dict + 1 == chosen.path.len() {
                return Err(self.refusal(entry.key, global, tensors));
            }
            for (position, name) in names.into_iter().enumerate() {
                let Some(name) = name else { continue };
                let tensors = if position == 0 { tensors } else { 0 };
                let place = places.entry((entry.dict, entry.key, name)).or_insert(found.len());
                if let Some(known) = found.get_mut(*place) {
                    known.tensors = known.tensors.saturating_add(tensors);
                    continue;
                }
                let above = entries.get(entry.dict).map_or("", String::as_str);
                let entry = format!("{above}{}", key_in_words(self.pickle, entry.key));
                let name = self.pickle.full_name(name);
                let bytes = 2 * (size_of::<OpaqueValue>() + 64);
                room.take(bytes + entry.len() + name.len())?;
                found.push(OpaqueValue { entry, name, tensors });
            }
        }
        for name in self.pickle.foreign() {
            let full = self.pickle.full_name(*name);
            if found.iter().all(|value| value.name != full) {
                found.push(OpaqueValue { entry: String::new(), name: full, tensors: 0 });
            }
        }
        Ok(found)
    }

    fn name_of(&self, value: Ref) -> Option<Global> {
        match self.pickle.get(value) {
            Value::Call { function, .. } | Value::Global(function) => Some(function),
            _ => None,
        }
    }

    fn refusal(&self, key: Ref, name: Option<Global>, tensors: usize) -> FormatError {
        let name = name.map(|name| self.pickle.full_name(name)).unwrap_or_default();
        let tensors = counted(tensors as u64, "tensor");
        let found = format!("{tensors} inside `{}`, which is not read", escape(&name));
        FormatError::new(Rule::Unsupported, "state dict", "tensors by their names", found)
            .tensor(key_in_words(self.pickle, key))
            .hint("load the file with torch and save a state dict of plain tensors")
    }
}

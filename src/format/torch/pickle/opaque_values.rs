//! Keeps opaque values unread: names that are data, and no tensors, may be called, filled and given
//! a state. Nothing is made of them; their parts are kept so that tensors in them are found.

use crate::format::error::{FormatError, Rule};
use crate::format::torch::pickle::names::globals::{Global, lookup};
use crate::format::torch::pickle::names::inert::{Form, Inert};
use crate::format::torch::pickle::stack::{MAY_RUN_CODE, Machine};
use crate::format::torch::pickle::value::{Ref, Span, Value};
use crate::tensor::escape;

/// Whether a name only builds objects of other names: no value of its own is left out.
pub(super) fn is_builder(global: Global) -> bool {
    matches!(global, Global::Inert(name) if name.form() == Form::Reconstructor)
}

impl Machine<'_> {
    /// What `module.name` means: a name of torch's list, one that is known to be data, or one that the
    /// user gave. `None` where it is none of these.
    pub(super) fn known(&self, module: &str, name: &str) -> Option<Global> {
        let inert = || Inert::find(module, name).map(Global::Inert);
        let given = || self.source.opaque.find(module, name).map(Global::Given);
        lookup(module, name).or_else(inert).or_else(given)
    }

    /// Keeps values as parts of another one, beside its arguments.
    pub(super) fn attach(&mut self, value: Ref, parts: &[Ref]) -> Result<(), FormatError> {
        self.deepen(value, parts)?;
        // Checked before it grows: a pickle may pass the same parts again and again.
        self.check_growth(parts.len().saturating_mul(size_of::<(Ref, Ref)>()))?;
        parts.iter().for_each(|part| self.arena.attached.push((value, *part)));
        Ok(())
    }

    /// A call of an inert name, or a new object of it, in one of its own forms.
    pub(super) fn inert_call(
        &mut self,
        name: Inert,
        span: Span,
        arguments: Ref,
        reduce: bool,
    ) -> Result<(), FormatError> {
        let items = self.arena.tuple(span).unwrap_or_default();
        let is_name = |item: &Ref| matches!(self.arena.get(*item), Value::Global(_));
        let function = match (name.form(), items) {
            (Form::Object, []) => Some(Global::Inert(name)),
            (Form::Call(least, most), _) if (least..=most).contains(&span.len) => {
                Some(Global::Inert(name))
            }
            (Form::Factory, []) if reduce => Some(Global::Inert(name)),
            (Form::Factory, [factory])
                if is_name(factory) || self.arena.get(*factory) == Value::None =>
            {
                Some(Global::Inert(name))
            }
            (Form::Reconstructor, [class, base, _content]) if reduce && is_name(base) => {
                self.object_class(*class)
            }
            _ => None,
        };
        let Some(function) = function else {
            let found = format!("`{name}` called in another way");
            let expected = "names in the forms in which Python writes them".to_owned();
            let error = self.error(Rule::ForbiddenGlobal, expected, found);
            return Err(error.hint(MAY_RUN_CODE));
        };
        let depth = self.depth_over([arguments])?;
        self.push(Value::Call { function, arguments }, depth)
    }

    /// The class of an object without arguments.
    fn object_class(&self, class: Ref) -> Option<Global> {
        match self.arena.get(class) {
            Value::Global(Global::Inert(name)) if name.form() != Form::Object => None,
            Value::Global(class) if class.is_foreign() => Some(class),
            _ => None,
        }
    }

    /// `NEWOBJ_EX`: keywords are for opaque values only.
    pub(super) fn new_with_keywords(&mut self, keywords: Ref) -> Result<(), FormatError> {
        let empty = match self.arena.get(keywords) {
            Value::Dict(index) => {
                self.arena.dicts.get(index as usize).is_some_and(|dict| dict.pairs.is_empty())
            }
            _ => false,
        };
        self.call(false)?;
        if empty {
            return Ok(());
        }
        let object = self.top()?;
        match (self.arena.get(object), self.arena.get(keywords)) {
            (Value::Call { function: Global::Given(_), .. }, Value::Dict(_)) => {
                self.attach(object, &[keywords])
            }
            _ => Err(self.broken("no keyword arguments", "some")),
        }
    }

    /// The state of an opaque value: a dict, or a tuple as numpy and classes with slots write it.
    /// Names of Python's own would change what the object does, not what it holds.
    pub(super) fn opaque_state(&mut self, object: Ref, state: Ref) -> Result<(), FormatError> {
        let mut parts = vec![state];
        if let Value::Tuple(span) = self.arena.get(state) {
            self.count_state_items(span.len as usize)?;
            parts.extend(self.arena.tuple(span).unwrap_or_default());
        }
        for part in parts {
            let Value::Dict(index) = self.arena.get(part) else { continue };
            let pairs = self.arena.dicts.get(index as usize).map(|dict| dict.pairs.len());
            self.count_state_items(pairs.unwrap_or(0))?;
            let pairs = self.arena.dicts.get(index as usize).map(|dict| dict.pairs.as_slice());
            for (key, _) in pairs.unwrap_or_default() {
                let name = self.arena.text(self.source.bytes, self.arena.get(*key)).unwrap_or("");
                if name.len() > 4 && name.starts_with("__") && name.ends_with("__") {
                    let found = format!("`{}`", escape(name));
                    let expected = "a state without names of Python's own";
                    return Err(self.unsupported(expected, found));
                }
            }
        }
        self.attach(object, &[state])
    }

    /// An item of a state takes a byte of the pickle or more, so all states together have at most as
    /// many items as it has bytes. One large state for ever more objects would take quadratic time.
    fn count_state_items(&mut self, items: usize) -> Result<(), FormatError> {
        self.state_items = self.state_items.saturating_add(items);
        if self.state_items <= self.cursor.position() {
            return Ok(());
        }
        Err(self.limit("a state for each object", "the same one for many"))
    }
}

//! Removes words that training wrappers put between the components of a name.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Kind, Result};
use crate::tensor::escape;

/// Components that only wrappers make: `torch.compile`, FSDP, activation checkpoints, Lightning
/// Fabric.
const WRAPPERS: [&str; 4] =
    ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"];

/// The component that `DataParallel` and its kin make, and that a few models have of their own
/// (LeViT, the only one in transformers 4.57.3).
const MODULE: &str = "module";

/// The counter that `AveragedModel` keeps beside its `module`.
const COUNTER: &str = "n_averaged";

/// Whether a component is a wrapper's.
pub(crate) fn is_wrapper(component: &str) -> bool {
    component == MODULE || WRAPPERS.contains(&component)
}

/// Whether a name may have such a component: all but `_orig_mod` contain `module`.
pub(crate) fn has_wrapper(name: &str) -> bool {
    name.contains(MODULE) || name.contains(WRAPPERS[0])
}

/// Names of one parent without wrapper words.
#[derive(Clone, Debug)]
pub(crate) struct Plain<'n> {
    /// In the order of the inventory.
    pub names: Vec<Cow<'n, str>>,
    /// The wrapper words that were taken off.
    pub taken: BTreeSet<&'static str>,
}

impl<'n> Plain<'n> {
    /// The names of a parent without the words that only wrappers make, and without a `module` in
    /// front of all of them.
    ///
    /// # Errors
    /// [`Kind::Data`] where two tensors would get one name.
    pub(crate) fn of(parent: &'n Checkpoint) -> Result<Plain<'n>> {
        let raw = parent.inventory.tensors.iter().map(|tensor| tensor.name.as_str());
        let mut plain = Plain { names: raw.map(Cow::Borrowed).collect(), taken: BTreeSet::new() };
        if !plain.names.iter().any(|name| has_wrapper(name)) {
            return Ok(plain);
        }
        for word in WRAPPERS {
            plain = plain.without(word);
        }
        while plain.is_led_by_module() {
            let rest = |name: &Cow<'n, str>| match name {
                Cow::Borrowed(name) => Cow::Borrowed(name.strip_prefix("module.").unwrap_or(name)),
                Cow::Owned(name) => {
                    Cow::Owned(name.strip_prefix("module.").unwrap_or(name).to_owned())
                }
            };
            plain.names = plain.names.iter().map(rest).collect();
            plain.taken.insert(MODULE);
        }
        if !plain.taken.is_empty() {
            refuse_twins(parent, &plain.names)?;
        }
        Ok(plain)
    }

    /// Whether `module` stands inside a name.
    pub(crate) fn has_module(&self) -> bool {
        self.names.iter().any(|name| has(name, MODULE))
    }

    /// The same without `module` wherever it stands; `None` where two names would become one.
    pub(crate) fn without_module(&self) -> Option<Plain<'n>> {
        let plain = self.clone().without(MODULE);
        let mut seen = HashSet::new();
        plain.names.iter().all(|name| seen.insert(name.as_ref())).then_some(plain)
    }

    fn is_led_by_module(&self) -> bool {
        let mut names = self.names.iter().filter(|name| name.as_ref() != COUNTER).peekable();
        names.peek().is_some() && names.all(|name| name.starts_with("module."))
    }

    fn without(mut self, word: &'static str) -> Plain<'n> {
        for name in self.names.iter_mut().filter(|name| has(name, word)) {
            let kept: Vec<&str> = name.split('.').filter(|part| *part != word).collect();
            // A name that is nothing but the word stays.
            if !kept.is_empty() {
                *name = Cow::Owned(kept.join("."));
                self.taken.insert(word);
            }
        }
        self
    }
}

/// Refuses a parent two of whose tensors have one name in `names`, which are in its own order.
///
/// # Errors
/// [`Kind::Data`] with both tensors.
pub(crate) fn refuse_twins(parent: &Checkpoint, names: &[Cow<'_, str>]) -> Result<()> {
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (position, name) in names.iter().enumerate() {
        let Some(twin) = first.insert(name, position) else { continue };
        let tensors = &parent.inventory.tensors;
        let named = |position: usize| tensors.get(position).map_or("", |tensor| &tensor.name);
        return Err(Error::new(Kind::Data, "two tensors would get one name")
            .file(&parent.path)
            .tensor(named(position))
            .expected(
                "names that differ in more than wrapper words and spellings",
                format!("`{}` as well, both of them `{}`", escape(named(twin)), escape(name)),
            )
            .with_hint("the file holds two copies of one model; take one of them out of it"));
    }
    Ok(())
}

/// Whether `word` is a component of a name.
fn has(name: &str, word: &str) -> bool {
    name.contains(word) && name.split('.').any(|part| part == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::headers::Headers;

    fn parent(names: &[&str]) -> Checkpoint {
        names.iter().fold(Headers::new(), |headers, name| headers.f16(name, &[2])).open()
    }

    fn plain(names: &[&str]) -> Vec<String> {
        let parent = parent(names);
        let plain = Plain::of(&parent).unwrap();
        plain.names.into_iter().map(Cow::into_owned).collect()
    }

    #[test]
    fn wrapper_words_are_taken_off_wherever_they_stand() {
        let wrapped = [
            "_orig_mod.model.norm.weight",
            "_orig_mod.model._fsdp_wrapped_module.layers.0._checkpoint_wrapped_module.mlp.weight",
            "_forward_module.lm_head._orig_mod.weight",
        ];
        let expected = ["model.norm.weight", "model.layers.0.mlp.weight", "lm_head.weight"];
        assert_eq!(plain(&wrapped), expected);
        assert_eq!(plain(&["my_orig_mod.w", "_orig_mods.w"]), ["my_orig_mod.w", "_orig_mods.w"]);
        assert_eq!(plain(&["_orig_mod", "x"]), ["_orig_mod", "x"]);
        // What was taken off is said, so nothing else may be in it.
        for (names, words) in [
            (
                &wrapped[..2],
                &["_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_orig_mod"][..],
            ),
            (&["module.a.w"], &["module"]),
            (&["my_orig_mod.w", "_orig_mods.w", "modules.w", "_orig_mod"], &[]),
        ] {
            let parent = parent(names);
            let taken = Plain::of(&parent).unwrap().taken;
            assert_eq!(taken.into_iter().collect::<Vec<_>>(), words);
        }
    }

    #[test]
    fn module_is_taken_off_by_itself_only_in_front_of_everything() {
        assert_eq!(plain(&["module.module.a.w", "module.module.b.w"]), ["a.w", "b.w"]);
        assert_eq!(plain(&["n_averaged", "module.w"]), ["n_averaged", "w"]);
        assert_eq!(plain(&["module._orig_mod.a", "_orig_mod.module.b"]), ["a", "b"]);
        assert_eq!(plain(&["module.a", "b"]), ["module.a", "b"]);
        assert_eq!(plain(&["encoder.module.a", "b"]), ["encoder.module.a", "b"]);
        assert_eq!(plain(&["n_averaged"]), ["n_averaged"]);
    }

    #[test]
    fn two_tensors_that_would_get_one_name_are_refused() {
        let parent = parent(&["a.w", "_orig_mod.a.w"]);
        let error = Plain::of(&parent).unwrap_err();
        assert_eq!((error.kind(), error.tensor_name()), (Kind::Data, Some("_orig_mod.a.w")));
    }

    #[test]
    fn module_inside_goes_only_where_the_names_stay_unique() {
        let both = parent(&["a.module.w", "a.w"]);
        assert!(Plain::of(&both).unwrap().without_module().is_none());
        let one = parent(&["a.module.w", "a.v"]);
        let plain = Plain::of(&one).unwrap();
        assert!(plain.has_module() && !plain.without_module().unwrap().has_module());
        assert_eq!(plain.without_module().unwrap().names, ["a.w", "a.v"]);
    }
}

//! Words the notes on what a file holds beside its state dict.

use crate::format::{OpaqueValue, StateDict};
use crate::tensor::{escape, listed};

/// Entries that a sentence names.
const SHOWN: usize = 8;

/// Notes on which entry is the state dict, and what is left out.
pub(super) fn notes(file: &str, state_dict: &StateDict) -> Vec<String> {
    let file = escape(file);
    let mut notes = Vec::new();
    if let Some(nest) = &state_dict.nest {
        notes.push(format!("the state dict of `{file}` is its entry `{}`", escape(nest)));
    }
    if !state_dict.skipped.is_empty() {
        let skipped = state_dict.skipped.iter().map(|name| escape(name));
        let words = match state_dict.nest {
            Some(_) => "further entries",
            None => "entries",
        };
        let no_tensors = if state_dict.nest.is_some() { "" } else { " that are no tensors" };
        notes.push(format!(
            "{words} of `{file}`{no_tensors} are left out: {}",
            listed(skipped, SHOWN)
        ));
    }
    if !state_dict.opaque.is_empty() {
        let values = opaque_values(&state_dict.opaque);
        notes.push(format!(
            "values of other programs in `{file}` are left out (read as data, not run): {}",
            listed(values, SHOWN)
        ));
    }
    notes
}

/// One text for each entry: `args` (`argparse.Namespace`, `pathlib.PosixPath`).
pub(crate) fn opaque_values(values: &[OpaqueValue]) -> Vec<String> {
    let mut entries: Vec<(&str, Vec<String>)> = Vec::new();
    for value in values {
        let name = escape(&value.name);
        let text = match value.tensors {
            0 => format!("`{name}`"),
            1 => format!("`{name}` with 1 tensor that is not merged"),
            more => format!("`{name}` with {more} tensors that are not merged"),
        };
        // Values of one entry are neighbours.
        match entries.last_mut() {
            Some((entry, names)) if *entry == value.entry => names.push(text),
            _ => entries.push((&value.entry, vec![text])),
        }
    }
    let text = |(entry, names): (&str, Vec<String>)| match entry {
        "" => names.join(", "),
        entry => format!("`{}` ({})", escape(entry), names.join(", ")),
    };
    entries.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Container;

    fn value(entry: &str, name: &str, tensors: usize) -> OpaqueValue {
        OpaqueValue { entry: entry.to_owned(), name: name.to_owned(), tensors }
    }

    #[test]
    fn the_state_dict_and_what_was_left_out_are_named() {
        let mut state_dict = StateDict {
            container: Container::Zip,
            tensors: Vec::new(),
            storages: Vec::new(),
            nest: Some("model.sd".to_owned()),
            skipped: (0..10).map(|number| number.to_string()).collect(),
            opaque: vec![
                value("args", "argparse.Namespace", 0),
                value("args", "pathlib.PosixPath", 0),
                value("cache", "m.C", 2),
                value("", "m.D\n", 0),
            ],
        };
        assert_eq!(
            notes("a.pt", &state_dict),
            [
                "the state dict of `a.pt` is its entry `model.sd`",
                "further entries of `a.pt` are left out: 0, 1, 2, 3, 4, 5, 6, 7, 2 more",
                "values of other programs in `a.pt` are left out (read as data, not run): `args` \
                 (`argparse.Namespace`, `pathlib.PosixPath`), `cache` (`m.C` with 2 tensors that are \
                 not merged), `m.D\\n`"
            ]
        );
        state_dict.nest = None;
        state_dict.opaque.clear();
        state_dict.skipped.truncate(1);
        let said = "entries of `a.pt` that are no tensors are left out: 0";
        assert_eq!(notes("a.pt", &state_dict), [said]);
    }
}

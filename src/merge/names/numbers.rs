//! Finds numbers in names: those of layers, experts and the like.

use std::collections::{BTreeMap, BTreeSet};

/// Whether a component of a name is a number: of a layer, an expert and the like.
pub(crate) fn is_number(component: &str) -> bool {
    !component.is_empty() && component.bytes().all(|byte| byte.is_ascii_digit())
}

/// A name with `N` for each number: equal for the same tensor of every layer.
pub(crate) fn unnumbered(name: &str) -> String {
    let components = name.split('.').map(|component| match is_number(component) {
        true => "N",
        false => component,
    });
    components.collect::<Vec<_>>().join(".")
}

/// Prefix before each number in a name → the numbers found there: `model.layers` → {0, 1, …}.
pub(crate) fn counts(names: &[String]) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut counts: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for name in names {
        let mut start = 0;
        for part in name.split('.') {
            if start > 0 && is_number(part) {
                counts.entry(&name[..start - 1]).or_default().insert(part);
            }
            start += part.len() + 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_behind_a_word_and_nothing_else_does() {
        for (names, expected) in [
            (&["h.0.w", "h.1.w", "h.1.b"][..], &[("h", 2)][..]),
            (&["a.layers.10.experts.3.w"], &[("a.layers", 1), ("a.layers.10.experts", 1)]),
            (&["h.7"], &[("h", 1)]),
            // A number in front of a name, one in a word, an empty component.
            (&["0.w", "h.x1.w", "h.1x.w", "h..w", ""], &[]),
        ] {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let found: Vec<_> = counts(&names).into_iter().map(|(p, all)| (p, all.len())).collect();
            assert_eq!(found, expected, "{names:?}");
        }
    }
}

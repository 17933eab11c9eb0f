//! Where tensors stood in a model whose sharded files don't tell.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Modules are looked for around a tensor this far out: models have eight levels.
const MOST_LEVELS: usize = 16;

/// A longer name is of no module.
const MOST_NAME_BYTES: usize = 512;

/// The first and the last tensor of a module, in the order so far.
#[derive(Clone, Copy)]
struct Span {
    first: usize,
    last: usize,
}

/// Puts names in order: the first `kept` stay as they are, the others go one by one where models have
/// them. That is beside the tensors of their innermost module that has any (embeddings before them,
/// all else after), else an embedding to the front and anything else (an lm_head) to the end.
/// Returns positions in `names`.
pub(super) fn restored(names: &[&str], kept: usize) -> Vec<usize> {
    let mut modules: HashMap<&str, Span> = HashMap::new();
    let mut line = Line::new(names.len());
    for (tensor, name) in names.iter().enumerate() {
        let stays = tensor < kept;
        let home =
            if stays { None } else { modules_of(name).find_map(|module| modules.get(module)) };
        match (home, !stays && is_embedding(name)) {
            (Some(span), true) => line.insert(tensor, line.previous[span.first]),
            (Some(span), false) => line.insert(tensor, span.last),
            (None, true) => line.insert(tensor, line.end()),
            (None, false) => line.insert(tensor, line.previous[line.end()]),
        }
        for module in modules_of(name) {
            match modules.entry(module) {
                Entry::Vacant(entry) => {
                    entry.insert(Span { first: tensor, last: tensor });
                }
                Entry::Occupied(mut entry) => {
                    let span = entry.get_mut();
                    if stays || span.last == line.previous[tensor] {
                        span.last = tensor;
                    } else if span.first == line.next[tensor] {
                        span.first = tensor;
                    }
                }
            }
        }
    }
    line.order()
}

fn is_embedding(name: &str) -> bool {
    name.contains("embed") || name.contains("wte")
}

/// `a.b.weight` is of `a.b`, and of `a`.
fn modules_of(name: &str) -> impl Iterator<Item = &str> {
    let dots = if name.len() > MOST_NAME_BYTES { "" } else { name };
    dots.rmatch_indices('.').map(|(dot, _)| &name[..dot]).take(MOST_LEVELS)
}

/// A list in which places are found and made at once: a ring of positions and its end.
struct Line {
    next: Vec<usize>,
    previous: Vec<usize>,
}

impl Line {
    /// Room for so many, none of them in the list.
    fn new(len: usize) -> Line {
        Line { next: vec![len; len + 1], previous: vec![len; len + 1] }
    }

    /// What stands before the first and behind the last.
    fn end(&self) -> usize {
        self.next.len() - 1
    }

    fn insert(&mut self, new: usize, behind: usize) {
        let next = std::mem::replace(&mut self.next[behind], new);
        self.previous[next] = new;
        self.next[new] = next;
        self.previous[new] = behind;
    }

    fn order(&self) -> Vec<usize> {
        let mut order = Vec::with_capacity(self.end());
        let mut at = self.next[self.end()];
        while at != self.end() {
            order.push(at);
            at = self.next[at];
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::chance;

    /// The same, place by place.
    fn one_by_one<'n>(names: &[&'n str], kept: usize) -> Vec<&'n str> {
        let mut order = names[..kept].to_vec();
        for name in &names[kept..] {
            let mut prefix = *name;
            let mut place = if is_embedding(name) { 0 } else { order.len() };
            while let Some(dot) = prefix.rfind('.') {
                prefix = &prefix[..dot];
                let inside = |other: &&str| other.starts_with(&format!("{prefix}."));
                if let Some(first) = order.iter().position(inside) {
                    let last = order.iter().rposition(inside).unwrap();
                    place = if is_embedding(name) { first } else { last + 1 };
                    break;
                }
            }
            order.insert(place, name);
        }
        order
    }

    #[test]
    fn names_go_where_a_search_through_all_of_them_puts_them() {
        let mut chance = chance(5);
        for _ in 0..500 {
            let names: Vec<String> = (0..chance(40))
                .map(|number| {
                    let levels =
                        (0..chance(4)).map(|_| ["a", "b", "embed", "b.c"][chance(4) as usize]);
                    let mut name: String = levels.map(|level| format!("{level}.")).collect();
                    name.push_str(&format!("w{number}"));
                    name
                })
                .collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let kept = chance(names.len() as u64 + 1) as usize;
            let order: Vec<&str> = restored(&names, kept).iter().map(|at| names[*at]).collect();
            assert_eq!(order, one_by_one(&names, kept), "{kept} of {names:?}");
        }
    }

    #[test]
    fn names_of_many_levels_take_no_time() {
        let deep: Vec<String> = (0..2000).map(|n| format!("{}{n}", ".".repeat(20_000))).collect();
        let flat: Vec<String> = (0..200_000).map(|n| format!("a.b.c.d.e.f{n}.w")).collect();
        let names: Vec<&str> = deep.iter().chain(&flat).map(String::as_str).collect();
        assert_eq!(restored(&names, names.len() / 2).len(), names.len());
    }
}

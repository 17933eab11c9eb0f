//! Merges two orders of tensors into one: of those that kept their order, and of those that the
//! split moved.

use std::collections::HashMap;
use std::ops::Range;

use crate::checkpoint::tensors::model_order::modules::Modules;

/// Modules with more parts than this are not compared part by part; most have a dozen.
const MOST_PARTS: usize = 64;

/// What is known of the order of a model's tensors apart from the files.
pub(super) struct Knowledge<'n> {
    pub(super) modules: Modules<'n>,
    /// Per tensor, its position in another model of the same names, where it has one there.
    pub(super) hint: &'n [Option<usize>],
}

/// What the files tell of one node of the tree.
#[derive(Clone, Copy)]
struct Evidence {
    /// Position of its first kept tensor among the kept.
    kept: Option<usize>,
    /// Position of its first moved tensor among the moved.
    moved: Option<usize>,
    /// It comes after the sibling whose first kept tensor is at this position.
    behind: Option<usize>,
    /// It comes before the sibling whose first kept tensor is at this position.
    before: Option<usize>,
}

/// What the files tell of all nodes.
struct Facts {
    nodes: HashMap<usize, Evidence>,
    /// Which of two kinds of siblings comes first, where the files tell for some layer.
    layers: HashMap<(usize, usize), bool>,
}

const NOTHING: Evidence = Evidence { kept: None, moved: None, behind: None, before: None };

impl Knowledge<'_> {
    /// Weaves `moved` into `kept`; both keep their own order. The files allow the moved tensor i to
    /// come after `places[i].start` to `places[i].end` of the kept ones.
    ///
    /// Which of two tensors comes first is told by the first of these that knows: the files, since
    /// torch writes a module's tensors side by side; torch's rules; the files of the same modules
    /// in other layers; the other model; the table of modules; the names. `clues` are the places of
    /// tensors that will be woven in later, which tell of their modules.
    pub(super) fn woven(
        &mut self,
        kept: &[usize],
        moved: &[usize],
        places: &[Range<usize>],
        clues: &[(usize, Range<usize>)],
    ) -> Vec<usize> {
        let placed = moved.iter().copied().zip(places.iter().cloned());
        let facts = self.facts(kept, moved, placed.chain(clues.iter().cloned()));
        self.woven_by(&facts, kept, moved, places)
    }

    /// Weaves several lines into one; all of them belong into `kept`.
    pub(super) fn together(
        &mut self,
        kept: &[usize],
        mut lines: Vec<Vec<usize>>,
        place: &[Range<usize>],
    ) -> Vec<usize> {
        let placed = lines.iter().flatten().map(|tensor| (*tensor, place[*tensor].clone()));
        let facts = self.facts(kept, &[], placed);
        while lines.len() > 1 {
            let pairs = lines.chunks(2).map(|pair| match pair {
                [a, b] => self.woven_by(&facts, a, b, &vec![0..a.len(); b.len()]),
                rest => rest.concat(),
            });
            lines = pairs.collect();
        }
        lines.pop().unwrap_or_default()
    }

    fn woven_by(
        &mut self,
        facts: &Facts,
        kept: &[usize],
        moved: &[usize],
        places: &[Range<usize>],
    ) -> Vec<usize> {
        let mut woven = Vec::with_capacity(kept.len() + moved.len());
        let (mut at, mut next) = (0, 0);
        while let (Some(a), Some(b), Some(place)) =
            (kept.get(at), moved.get(next), places.get(next))
        {
            let kept_first = at < place.start || at < place.end && self.is_before(*a, *b, facts);
            if kept_first {
                woven.push(*a);
                at += 1;
            } else {
                woven.push(*b);
                next += 1;
            }
        }
        woven.extend(kept.get(at..).unwrap_or_default());
        woven.extend(moved.get(next..).unwrap_or_default());
        woven
    }

    /// Collects what two lines and the places of tensors in `kept` tell of the nodes.
    fn facts(
        &self,
        kept: &[usize],
        moved: &[usize],
        places: impl Iterator<Item = (usize, Range<usize>)>,
    ) -> Facts {
        let mut nodes: HashMap<usize, Evidence> = HashMap::new();
        for (place, tensor) in kept.iter().enumerate() {
            for node in self.modules.path(*tensor) {
                nodes.entry(*node).or_insert(NOTHING).kept.get_or_insert(place);
            }
        }
        for (place, tensor) in moved.iter().enumerate() {
            for node in self.modules.path(*tensor) {
                nodes.entry(*node).or_insert(NOTHING).moved.get_or_insert(place);
            }
        }
        for (tensor, place) in places {
            let last_before = place.start.checked_sub(1).and_then(|at| kept.get(at));
            if let Some((own, other)) = last_before.and_then(|k| self.modules.parting(tensor, *k)) {
                let first = nodes.get(&other).and_then(|found| found.kept);
                let own = nodes.entry(own).or_insert(NOTHING);
                own.behind = own.behind.max(first);
            }
            let first_behind = kept.get(place.end);
            if let Some((own, other)) = first_behind.and_then(|k| self.modules.parting(tensor, *k))
            {
                let first = nodes.get(&other).and_then(|found| found.kept);
                let own = nodes.entry(own).or_insert(NOTHING);
                own.before = own.before.into_iter().chain(first).min();
            }
        }
        let layers = self.told_by_other_layers(&nodes);
        Facts { nodes, layers }
    }

    /// Whether tensor `a` comes before `b`.
    fn is_before(&mut self, a: usize, b: usize, facts: &Facts) -> bool {
        let Some((node_a, node_b)) = self.modules.parting(a, b) else { return true };
        let of = |node| facts.nodes.get(&node).copied().unwrap_or(NOTHING);
        let kinds = (self.modules.kind(node_a), self.modules.kind(node_b));
        let in_other = || Some(self.hint.get(a).copied()?? < self.hint.get(b).copied()??);
        told_by_files(of(node_a), of(node_b))
            .or_else(|| self.modules.by_rule(node_a, node_b))
            .or_else(|| facts.layers.get(&kinds).copied())
            .or_else(in_other)
            .or_else(|| self.modules.by_table(node_a, node_b))
            .or_else(|| self.modules.by_words(node_a, node_b))
            .unwrap_or(true)
    }

    /// Which of two kinds of siblings comes first, where the files tell for some layer. Lists of
    /// layers are passed over: they have many parts of one kind.
    fn told_by_other_layers(
        &self,
        found: &HashMap<usize, Evidence>,
    ) -> HashMap<(usize, usize), bool> {
        let mut nodes: Vec<(usize, usize, Evidence)> =
            found.iter().map(|(node, found)| (self.modules.parent(*node), *node, *found)).collect();
        // Where two layers differ, the first one counts.
        nodes.sort_unstable_by_key(|(parent, node, _)| (*parent, *node));
        let mut layers = HashMap::new();
        let modules = nodes.chunk_by(|a, b| a.0 == b.0);
        for siblings in modules.filter(|siblings| siblings.len() <= MOST_PARTS) {
            for (_, a, of_a) in siblings {
                for (_, b, of_b) in siblings {
                    let kinds = (self.modules.kind(*a), self.modules.kind(*b));
                    if kinds.0 != kinds.1
                        && let Some(before) = told_by_files(*of_a, *of_b)
                    {
                        layers.entry(kinds).or_insert(before);
                    }
                }
            }
        }
        layers
    }
}

/// Whether `a` comes before its sibling `b`.
fn told_by_files(a: Evidence, b: Evidence) -> Option<bool> {
    if let (Some(a), Some(b)) = (a.kept, b.kept) {
        return Some(a < b);
    }
    if let (Some(a), Some(b)) = (a.moved, b.moved) {
        return Some(a < b);
    }
    if is_apart(a, b) {
        return Some(true);
    }
    is_apart(b, a).then_some(false)
}

/// Whether siblings with kept tensors tell that `a` comes before `b`.
fn is_apart(a: Evidence, b: Evidence) -> bool {
    let ends = a.kept.or(a.before);
    let starts = b.kept.or(b.behind);
    let told = a.kept.is_some() || b.kept.is_some() || a.before.is_some() && b.behind.is_some();
    told && ends.zip(starts).is_some_and(|(ends, starts)| ends <= starts)
}

//! Restores the order of a model's state dict from sharded files.
//!
//! `save_pretrained` loses it in two ways ([`crate::checkpoint::child::split`]): a tensor larger
//! than a shard overtakes the shard being filled, and later names of a tied tensor go to the end of
//! the first one's shard.
//!
//! ```text
//! model    a  b  HUGE  c | d  e  (tied to a)  f
//! files    1: HUGE   2: a b c tied   3: d e f
//! ```
//!
//! Tensors of filled shards keep their order, and so do the overtakers among themselves. An
//! overtaker numbered between two filled shards comes after the first tensor of the second, since
//! that one closed the first, and before the tensors of the third; torch writes a module's tensors
//! side by side. That leaves few places; [`weave`] decides among them.

mod modules;
pub(super) mod names;
mod overtakers;
mod siblings;
mod weave;

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use modules::Modules;
use overtakers::{Hypothesis, ShardSize, hypotheses};
use weave::Knowledge;

/// A tensor as it was saved.
#[derive(Clone, Copy, Debug)]
pub(super) struct SavedTensor<'n> {
    /// Its name.
    pub(super) name: &'n str,
    /// Index of its file, in the order of the files' numbers.
    pub(super) file: usize,
    /// Its storage; tied tensors share one.
    pub(super) storage: usize,
    /// Length of the whole storage in bytes.
    pub(super) storage_bytes: u64,
}

/// Positions in `tensors`, which are in file order, in the order of the model's state dict.
pub(super) fn restored(tensors: &[SavedTensor<'_>]) -> Vec<usize> {
    restored_beside(tensors, &[]).unwrap_or_else(|| (0..tensors.len()).collect())
}

/// Like [`restored`], with a hint: the position of each tensor in another model of the same names,
/// where it has one there. `None` where the files alone tell the order, or where the hint can't be
/// the order of a model.
pub(super) fn restored_beside(
    tensors: &[SavedTensor<'_>],
    hint: &[Option<usize>],
) -> Option<Vec<usize>> {
    let groups = Groups::of(tensors);
    let hypotheses = hypotheses(&groups.shards(tensors));
    if groups.later.is_empty() && hypotheses.len() == 1 {
        return None;
    }
    let modules = Modules::of(tensors.iter().map(|tensor| tensor.name));
    let mut knowledge = Knowledge { modules, hint: &[] };
    if faults(&mut knowledge, &order_of(hint)) != (0, 0) {
        return None;
    }
    knowledge.hint = hint;
    let mut best = None;
    for hypothesis in hypotheses {
        let order = order_under(&mut knowledge, tensors, &groups, &hypothesis);
        let (broken, unusual) = faults(&mut knowledge, &order);
        let overtakers = hypothesis.overtook.iter().filter(|overtook| **overtook).count();
        let badness = (broken, !hypothesis.possible, unusual, overtakers);
        let perfect = badness == (0, false, 0, 0);
        if best.as_ref().is_none_or(|(least, _)| badness < *least) {
            best = Some((badness, order));
        }
        if perfect {
            break;
        }
    }
    best.map(|(_, order)| order)
}

/// Tensors grouped by storage, as the split groups them.
struct Groups {
    /// The first name of each group, in file order.
    first: Vec<usize>,
    /// Per group, its later names, each with the group's first name.
    later: Vec<Vec<(usize, usize)>>,
}

impl Groups {
    fn of(tensors: &[SavedTensor<'_>]) -> Groups {
        // All storages without bytes are one group.
        let mut groups: HashMap<Option<usize>, (usize, Option<usize>)> = HashMap::new();
        let mut found = Groups { first: Vec::new(), later: Vec::new() };
        for (position, tensor) in tensors.iter().enumerate() {
            let storage = (tensor.storage_bytes > 0).then_some(tensor.storage);
            let group = groups.entry(storage).or_insert((position, None));
            // The split never spreads a group over two files.
            if group.0 == position || tensors[group.0].file != tensor.file {
                found.first.push(position);
                continue;
            }
            let later = *group.1.get_or_insert(found.later.len());
            if later == found.later.len() {
                found.later.push(Vec::new());
            }
            found.later[later].push((position, group.0));
        }
        found
    }

    /// Sizes of the files as the split counted them.
    fn shards(&self, tensors: &[SavedTensor<'_>]) -> Vec<ShardSize> {
        let files = tensors.iter().map(|tensor| tensor.file + 1).max().unwrap_or(0);
        let mut shards = vec![ShardSize { storages: 0, bytes: 0, first_bytes: 0 }; files];
        for position in &self.first {
            let tensor = &tensors[*position];
            let shard = &mut shards[tensor.file];
            if shard.storages == 0 {
                shard.first_bytes = tensor.storage_bytes;
            }
            shard.storages += 1;
            shard.bytes = shard.bytes.saturating_add(tensor.storage_bytes);
        }
        shards.retain(|shard| shard.storages > 0);
        shards
    }
}

/// The model's order under a hypothesis.
fn order_under(
    knowledge: &mut Knowledge<'_>,
    tensors: &[SavedTensor<'_>],
    groups: &Groups,
    hypothesis: &Hypothesis,
) -> Vec<usize> {
    let (mut kept, mut moved, mut ahead) = (Vec::new(), Vec::new(), Vec::new());
    // A hypothesis doesn't count files without a first name.
    let mut shard = 0;
    let mut file = None;
    // End of each filled shard so far, as a position in `kept`.
    let mut ends: Vec<usize> = Vec::new();
    for position in &groups.first {
        if file.is_some_and(|file| file != tensors[*position].file) {
            shard += 1;
        }
        let starts = file != Some(tensors[*position].file);
        file = Some(tensors[*position].file);
        if hypothesis.overtook.get(shard) == Some(&true) {
            moved.push(*position);
            ahead.push(ends.len());
            continue;
        }
        kept.push(*position);
        if starts {
            ends.push(kept.len());
        } else if let Some(end) = ends.last_mut() {
            *end = kept.len();
        }
    }
    let places: Vec<Range<usize>> = ahead
        .iter()
        .map(|shard| {
            let end = ends.get(*shard).copied().unwrap_or(kept.len());
            match shard.checked_sub(1).and_then(|before| ends.get(before)) {
                Some(begin) => (begin + 1).min(end)..end,
                None => 0..end,
            }
        })
        .collect();
    let place: HashMap<usize, usize> =
        kept.iter().enumerate().map(|(place, tensor)| (*tensor, place)).collect();
    let behind_first = |(later, first): &(usize, usize)| {
        place.get(first).map(|place| (*later, place + 1..kept.len()))
    };
    let clues: Vec<(usize, Range<usize>)> =
        groups.later.iter().flatten().filter_map(behind_first).collect();
    let line = knowledge.woven(&kept, &moved, &places, &clues);
    with_later_names(knowledge, tensors, groups, &line)
}

/// `line` with the later names of tied tensors woven in: each behind its group's first name, and
/// before what follows it in its file.
fn with_later_names(
    knowledge: &mut Knowledge<'_>,
    tensors: &[SavedTensor<'_>],
    groups: &Groups,
    line: &[usize],
) -> Vec<usize> {
    let mut place = vec![0; tensors.len()];
    for (at, tensor) in line.iter().enumerate() {
        place[*tensor] = at;
    }
    let mut allowed = vec![0..0; tensors.len()];
    for (position, first) in groups.later.iter().flatten() {
        allowed[*position] = place[*first] + 1..line.len();
    }
    let mut behind: Option<usize> = None;
    let mut firsts = groups.first.iter().rev().peekable();
    for position in (0..tensors.len()).rev() {
        if firsts.next_if_eq(&&position).is_some() {
            behind = Some(position);
        } else if let Some(next) =
            behind.filter(|next| tensors[*next].file == tensors[position].file)
        {
            let place = place[next];
            allowed[position].end = place.max(allowed[position].start);
        }
    }
    let later: Vec<Vec<usize>> =
        groups.later.iter().map(|group| group.iter().map(|(later, _)| *later).collect()).collect();
    let later = knowledge.together(line, later, &allowed);
    let places: Vec<Range<usize>> =
        later.iter().map(|position| allowed[*position].clone()).collect();
    knowledge.woven(line, &later, &places, &[])
}

/// Positions that have a hint, in the order of the hint.
fn order_of(hint: &[Option<usize>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..hint.len()).filter(|tensor| hint[*tensor].is_some()).collect();
    order.sort_by_key(|tensor| hint[*tensor]);
    order
}

/// How often an order returns to a module that it had left, which torch never does; and how often
/// two neighbours contradict torch's rules, the other model or the table.
fn faults(knowledge: &mut Knowledge<'_>, order: &[usize]) -> (usize, usize) {
    let (mut broken, mut unusual) = (0, 0);
    let mut left: HashSet<usize> = HashSet::new();
    for pair in order.windows(2) {
        let Some((a, b)) = knowledge.modules.parting(pair[0], pair[1]) else { continue };
        left.extend(knowledge.modules.path(pair[0]).iter().skip_while(|node| **node != a));
        let again = knowledge.modules.path(pair[1]).iter().filter(|node| left.contains(*node));
        broken += again.count();
        let hint = |tensor: usize| knowledge.hint.get(tensor).copied().flatten();
        let other = hint(pair[0]).zip(hint(pair[1])).map(|(a, b)| a < b);
        let by_rule = knowledge.modules.by_rule(a, b);
        let by_table = by_rule.or_else(|| knowledge.modules.by_table(a, b));
        unusual += usize::from(other == Some(false)) + usize::from(by_table == Some(false));
    }
    (broken, unusual)
}

#[cfg(test)]
mod tests;

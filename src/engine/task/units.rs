//! Cuts a plan into units of work.

use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};

use crate::checkpoint::Checkpoint;
use crate::engine::task::tensor_task::{Finished, Task};

/// What a worker takes from the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    /// A small tensor, both passes.
    Whole(usize),
    /// Pass one over a span.
    Scan(usize, usize),
    /// Pass two over a span.
    Write(usize, usize),
    /// A storage of the primary (0) or secondary (1) of which tensors show only parts, or nothing.
    Verify(usize, usize),
}

/// In which order tensors are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// As they are stored in the child's files, so that disks read and write from front to back.
    Stored,
    /// The largest first, so that the last unit is short and no worker waits long for another.
    LargestFirst,
}

impl Order {
    /// The positions of tensors of these sizes.
    fn of(self, sizes: &[u64]) -> Vec<usize> {
        let mut positions: Vec<usize> = (0..sizes.len()).collect();
        if self == Order::LargestFirst {
            positions.sort_by_key(|position| Reverse(sizes[*position]));
        }
        positions
    }
}

/// The work, tensors of up to `whole_bytes` on both sides as one unit; none for what is finished.
/// `left_over` are storages that are read for their CRC alone.
pub(crate) fn units(
    tasks: &[Task<'_>],
    finished: &[Option<Finished>],
    parents: [&Checkpoint; 2],
    (whole_bytes, order): (u64, Order),
    left_over: Vec<(usize, usize)>,
) -> VecDeque<Unit> {
    let mut units = VecDeque::new();
    let mut partly = BTreeSet::new();
    for index in order.of(&tasks.iter().map(Task::kept_bytes).collect::<Vec<_>>()) {
        let task = &tasks[index];
        for (side, source) in task.sides().into_iter().enumerate() {
            if let Some(source) = source
                && !source.covers_storage()
                && !source.needs_whole()
            {
                partly.insert((side, source.tensor.storage));
            }
        }
        if finished.get(index).is_some_and(Option::is_some) {
            continue;
        }
        let whole = task.kept_bytes() <= whole_bytes
            || task.sides().into_iter().flatten().any(|source| source.needs_whole());
        if task.needs_scan() && whole {
            units.push_back(Unit::Whole(index));
        } else if task.needs_scan() {
            units.extend((0..task.spans()).map(|span| Unit::Scan(index, span)));
        } else {
            units.extend((0..task.spans()).map(|span| Unit::Write(index, span)));
        }
    }
    let has_crc = |side: usize, storage: usize| {
        parents[side].inventory.storages.get(storage).is_some_and(|storage| storage.crc32.is_some())
    };
    units.extend(
        partly
            .into_iter()
            .filter(|(side, storage)| has_crc(*side, *storage))
            .chain(left_over)
            .map(|(side, storage)| Unit::Verify(side, storage)),
    );
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_come_first_and_equals_stay_in_order() {
        assert_eq!(Order::LargestFirst.of(&[2, 9, 0, 9, 5]), [1, 3, 4, 0, 2]);
        assert_eq!(Order::Stored.of(&[2, 9, 0]), [0, 1, 2]);
    }
}

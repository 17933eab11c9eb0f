//! Cuts a plan into units of work.

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

/// The work in the order of the child's file, tensors of up to `whole_bytes` on both sides as one
/// unit; none for what is finished. `left_over` are storages that are read for their CRC alone.
pub(crate) fn units(
    tasks: &[Task<'_>],
    finished: &[Option<Finished>],
    parents: [&Checkpoint; 2],
    whole_bytes: u64,
    left_over: Vec<(usize, usize)>,
) -> VecDeque<Unit> {
    let mut units = VecDeque::new();
    let mut partly = BTreeSet::new();
    for (index, task) in tasks.iter().enumerate() {
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

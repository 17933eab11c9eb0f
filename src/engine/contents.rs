//! Collects the CRC-32 of storages whose files keep none, while a merge reads them: such a parent
//! is recognised by them later.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::checkpoint::Checkpoint;
use crate::engine::read::source::{Source, is_bare};
use crate::engine::task::tensor_task::{Finished, Task};
use crate::error::{Error, Kind, Result};
use crate::tensor::Crc;

/// CRC-32 of the storages of both parents, primary first, by their place in the inventory: of those
/// whose file keeps none, once all their bytes were read.
pub type ContentSums = [Vec<Option<u32>>; 2];

/// The bare storages of each file of a checkpoint, by their place in the inventory.
pub(crate) fn bare_storages(checkpoint: &Checkpoint) -> Vec<Vec<usize>> {
    let mut bare = vec![Vec::new(); checkpoint.files.len()];
    for (place, storage) in checkpoint.inventory.storages.iter().enumerate() {
        if let Some(file) = bare.get_mut(storage.file).filter(|_| is_bare(storage)) {
            file.push(place);
        }
    }
    bare
}

/// The sums as they come in, from any thread and in any order.
#[derive(Debug, Default)]
pub(crate) struct Contents(Mutex<ContentSums>);

impl Contents {
    /// With what an interrupted run noted of the tensors that it finished.
    pub(crate) fn new(
        parents: [&Checkpoint; 2],
        tasks: &[Task<'_>],
        finished: &[Option<Finished>],
    ) -> Contents {
        let mut sums = parents.map(|parent| vec![None; parent.inventory.storages.len()]);
        for (task, finished) in tasks.iter().zip(finished) {
            let Some(finished) = finished else { continue };
            for (lane, source) in task.sides().into_iter().enumerate() {
                let slot = source.and_then(|source| sums[lane].get_mut(source.tensor.storage));
                if let (Some(slot), Some(crc32)) = (slot, finished.contents[lane]) {
                    *slot = Some(crc32);
                }
            }
        }
        Contents(Mutex::new(sums))
    }

    fn lock(&self) -> MutexGuard<'_, ContentSums> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks a tensor's bytes, read whole on both sides, against the CRCs of their files, and notes
    /// those that no file keeps. `spans` are in order. Returns the bytes read.
    ///
    /// # Errors
    /// [`Kind::Data`] where a CRC is another; [`Kind::TryAgain`] where a storage was read twice and
    /// was not the same.
    pub(crate) fn take(
        &self,
        task: &Task<'_>,
        spans: impl Iterator<Item = [Crc; 2]> + Clone,
    ) -> Result<u64> {
        let mut bytes = 0u64;
        for (lane, source) in task.sides().into_iter().enumerate() {
            let Some(source) = source else { continue };
            let crc = Crc::joined(spans.clone().map(|read| read[lane]));
            bytes = bytes.saturating_add(crc.bytes);
            source.check_crc(crc.crc32)?;
            if let Some(found) = source.content(crc.crc32) {
                self.note(lane, source.tensor.storage, found)?;
            }
        }
        Ok(bytes)
    }

    /// Notes the CRC of a storage of the primary (0) or secondary (1).
    ///
    /// # Errors
    /// [`Kind::TryAgain`] where another one is noted.
    pub(crate) fn note(&self, lane: usize, storage: usize, crc32: u32) -> Result<()> {
        let mut sums = self.lock();
        match sums[lane].get_mut(storage).map(|slot| slot.replace(crc32)) {
            Some(Some(before)) if before != crc32 => {
                Err(Error::new(Kind::TryAgain, "a parent changed while it was read")
                    .expected(format!("CRC-32 {before:08x}"), format!("{crc32:08x}"))
                    .with_hint("let what writes it finish, then merge again"))
            }
            _ => Ok(()),
        }
    }

    /// What is noted of both sides of a tensor, for the journal.
    pub(crate) fn of(&self, task: &Task<'_>) -> [Option<u32>; 2] {
        let sums = self.lock();
        let of = |lane: usize, source: Option<&Source<'_>>| {
            sums[lane].get(source?.tensor.storage).copied().flatten()
        };
        let [primary, secondary] = task.sides();
        [of(0, primary), of(1, secondary)]
    }

    /// What is noted so far.
    pub(crate) fn sums(&self) -> ContentSums {
        self.lock().clone()
    }

    /// Side and place of each bare storage of which nothing is noted, and that no tensor which is to
    /// be merged reads whole.
    pub(crate) fn left_over(
        &self,
        parents: [&Checkpoint; 2],
        tasks: &[Task<'_>],
        finished: &[Option<Finished>],
    ) -> Vec<(usize, usize)> {
        let mut known =
            self.lock().clone().map(|side| side.iter().map(Option::is_some).collect::<Vec<bool>>());
        for (task, finished) in tasks.iter().zip(finished) {
            if finished.is_some() || task.plan.numel == 0 {
                continue;
            }
            for (lane, source) in task.sides().into_iter().enumerate() {
                if let Some(source) = source.filter(|source| source.reads_storage())
                    && let Some(slot) = known[lane].get_mut(source.tensor.storage)
                {
                    *slot = true;
                }
            }
        }
        let mut left = Vec::new();
        for (side, parent) in parents.into_iter().enumerate() {
            for (place, storage) in parent.inventory.storages.iter().enumerate() {
                if is_bare(storage) && known[side].get(place) == Some(&false) {
                    left.push((side, place));
                }
            }
        }
        left
    }
}

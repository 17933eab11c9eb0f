//! `Blocks`: a vector that grows by blocks, so that the memory of a pickle's values can be bounded
//! closely.
//!
//! A `Vec` doubles: it may take twice what its items do, and three times that while it moves. Values of
//! a state dict's pickle would take up to 4.9 bytes for each of its bytes, not counting moves; in blocks
//! they take 3.3 at most, and reading is as fast. The budget is 4.

/// Items in a block.
const BLOCK: usize = 1 << 8;

/// Items one by one ([`push`](Blocks::push)) or as runs that stay together
/// ([`push_run`](Blocks::push_run)); one of the two for each vector.
#[derive(Debug)]
pub(super) struct Blocks<T> {
    blocks: Vec<Vec<T>>,
    taken_bytes: usize,
}

impl<T> Default for Blocks<T> {
    fn default() -> Blocks<T> {
        Blocks { blocks: Vec::new(), taken_bytes: 0 }
    }
}

impl<T> Blocks<T> {
    /// Bytes of memory that the blocks take, filled or not.
    pub(super) fn bytes(&self) -> usize {
        self.taken_bytes
    }

    /// Items that were pushed one by one.
    pub(super) fn len(&self) -> usize {
        let last = self.blocks.last().map_or(0, Vec::len);
        self.blocks.len().saturating_sub(1).saturating_mul(BLOCK).saturating_add(last)
    }

    /// All items in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> + '_ {
        self.blocks.iter().flatten()
    }

    /// The item at a position.
    pub(super) fn get(&self, position: usize) -> Option<&T> {
        self.blocks.get(position / BLOCK)?.get(position % BLOCK)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, position: usize) -> Option<&mut T> {
        self.blocks.get_mut(position / BLOCK)?.get_mut(position % BLOCK)
    }

    /// Adds an item at the end.
    pub(super) fn push(&mut self, item: T) {
        if self.blocks.last().is_none_or(|last| last.len() >= BLOCK) {
            self.add_block(BLOCK);
        }
        if let Some(last) = self.blocks.last_mut() {
            last.push(item);
        }
    }

    fn add_block(&mut self, capacity: usize) {
        let block: Vec<T> = Vec::with_capacity(capacity);
        let bytes = block.capacity().saturating_mul(size_of::<T>());
        self.taken_bytes =
            self.taken_bytes.saturating_add(bytes).saturating_add(size_of::<Vec<T>>());
        self.blocks.push(block);
    }
}

impl<T: Copy> Blocks<T> {
    /// Adds items that stay together, and gives the position by which [`run`](Blocks::run) finds them.
    pub(super) fn push_run(&mut self, items: &[T]) -> usize {
        let room = |last: &Vec<T>| BLOCK.saturating_sub(last.len());
        if self.blocks.last().is_none_or(|last| room(last) < items.len()) {
            self.add_block(items.len().max(BLOCK));
        }
        let block = self.blocks.len().saturating_sub(1);
        let Some(last) = self.blocks.last_mut() else { return 0 };
        // A run that is longer than a block begins one, so its start fits all the same.
        let start = block.saturating_mul(BLOCK).saturating_add(last.len());
        last.extend_from_slice(items);
        start
    }

    /// A run of `len` items from its position.
    pub(super) fn run(&self, start: usize, len: usize) -> Option<&[T]> {
        if len == 0 {
            return Some(&[]);
        }
        let from = start % BLOCK;
        self.blocks.get(start / BLOCK)?.get(from..from.checked_add(len)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_found_by_position() {
        let mut blocks = Blocks::default();
        assert_eq!((blocks.len(), blocks.bytes(), blocks.get(0)), (0, 0, None));
        for number in 0..5000u32 {
            assert_eq!(blocks.len(), number as usize);
            blocks.push(number);
        }
        if let Some(item) = blocks.get_mut(4999) {
            *item = 7;
        }
        assert_eq!(
            [0, 255, 256, 4998, 4999, 5000].map(|at| blocks.get(at).copied()),
            [Some(0), Some(255), Some(256), Some(4998), Some(7), None]
        );
        assert_eq!(blocks.iter().count(), 5000);
        // Twenty blocks of 256 items of four bytes, and their own three words.
        assert_eq!(blocks.bytes(), 20 * (256 * 4 + 24));
    }

    #[test]
    fn runs_stay_together_whatever_their_length() {
        let mut blocks = Blocks::default();
        let runs: Vec<Vec<u8>> =
            [1, 255, 2, 256, 1, 5000, 0, 3].map(|length| vec![length as u8; length]).to_vec();
        let starts: Vec<usize> = runs.iter().map(|run| blocks.push_run(run)).collect();
        for (start, run) in starts.into_iter().zip(&runs) {
            assert_eq!(blocks.run(start, run.len()), Some(run.as_slice()));
        }
        assert_eq!(blocks.run(1 << 20, 1), None);
    }
}

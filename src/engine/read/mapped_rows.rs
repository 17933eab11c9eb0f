//! Where the elements of a parent lie in a tensor whose rows are mapped along one of its dimensions.
//!
//! Flattened, the child's tensor is a run of blocks, one per place in the dimensions before the mapped
//! one (one in all where that is the first). Each block is a run of rows of the parent's block, and of
//! rows that it lacks:
//!
//! ```text
//! file:   [a0 b0 c0][a1 b1 c1]
//! child:  [b0 c0 -- a0][b1 c1 -- a1]
//! ```

use std::ops::Range;
use std::sync::Arc;

use crate::merge::RowMap;

/// The rows of a mapped tensor, in elements.
#[derive(Clone, Debug)]
pub(crate) struct MappedRows {
    map: Arc<RowMap>,
    /// Elements of a row in one block: the sizes behind the mapped dimension.
    width: u64,
}

/// Consecutive elements of a piece that are consecutive in the file, or that the parent lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MappedRun {
    /// Where in the piece.
    pub(crate) range: Range<usize>,
    /// The first one's place in the file; `None` where the parent lacks them.
    pub(crate) from: Option<u64>,
    /// The block that they are in.
    pub(crate) block: u64,
    /// The first one's place among the elements that the parent lacks in the block.
    pub(crate) missing: u64,
}

impl MappedRows {
    /// Rows of `width` elements.
    pub(crate) fn new(map: Arc<RowMap>, width: u64) -> MappedRows {
        MappedRows { map, width }
    }

    /// Rows that the parent lacks.
    pub(crate) fn missing(&self) -> u64 {
        self.map.missing()
    }

    /// Whether all of the parent's rows are read, in their order.
    pub(crate) fn is_in_order(&self) -> bool {
        self.map.is_in_order()
    }

    /// The runs of `numel` elements of the child from `start` on, in order.
    pub(crate) fn runs(&self, start: u64, numel: usize) -> impl Iterator<Item = MappedRun> {
        let in_child = self.map.rows().saturating_mul(self.width);
        let in_file = self.map.own().saturating_mul(self.width);
        let mut done = 0;
        std::iter::from_fn(move || {
            if done >= numel {
                return None;
            }
            let at = start.saturating_add(done as u64);
            let block = at.checked_div(in_child)?;
            let place = at % in_child;
            let row = place / self.width;
            let runs = self.map.runs();
            let run = runs.get(runs.partition_point(|run| run.start <= row).checked_sub(1)?)?;
            let end = (run.start + run.rows).saturating_mul(self.width);
            let length = usize::try_from(end - place).unwrap_or(numel).min(numel - done);
            let skip = place - run.start * self.width;
            let range = done..done + length;
            done += length;
            Some(MappedRun {
                range,
                from: run.from.map(|row| block * in_file + row * self.width + skip),
                block,
                missing: run.missing_before * self.width + skip,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_what_the_map_says_element_by_element() {
        let maps: [&[Option<u64>]; 5] = [
            &[Some(0), Some(1), Some(2)],
            &[Some(1), Some(2), None, Some(0)],
            &[None, None, Some(2), None],
            &[Some(0), Some(1), None],
            &[Some(2), Some(1), Some(0), None, Some(1)],
        ];
        for (rows, width, blocks) in maps.into_iter().flat_map(|map| {
            [(1, 1), (4, 1), (1, 3), (2, 3)].map(|(width, blocks)| (map, width, blocks))
        }) {
            let map = Arc::new(RowMap::new(rows.iter().copied(), 3));
            let mapped = MappedRows::new(map, width);
            let mut whole = Vec::new();
            for block in 0..blocks {
                let mut lacked = 0;
                for row in rows {
                    for column in 0..width {
                        let from = row.map(|row| block * 3 * width + row * width + column);
                        whole.push((from, block, lacked));
                        lacked += u64::from(row.is_none());
                    }
                }
            }
            for start in 0..whole.len() {
                for numel in 0..=whole.len() - start {
                    let mut next = 0;
                    for run in mapped.runs(start as u64, numel) {
                        assert_eq!(run.range.start, next);
                        next = run.range.end;
                        for (offset, at) in run.range.clone().enumerate() {
                            let offset = offset as u64;
                            let (from, block, missing) = whole[start + at];
                            assert_eq!(run.from.map(|from| from + offset), from);
                            assert_eq!(run.block, block);
                            if from.is_none() {
                                assert_eq!(run.missing + offset, missing);
                            }
                        }
                    }
                    assert_eq!(next, numel);
                }
            }
        }
    }

    #[test]
    fn a_tensor_without_elements_has_no_runs() {
        let map = Arc::new(RowMap::extended(3, 5));
        assert_eq!(MappedRows::new(Arc::clone(&map), 0).runs(0, 4).count(), 0);
        assert_eq!(MappedRows::new(map, 2).runs(0, 0).count(), 0);
    }
}

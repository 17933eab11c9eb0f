//! Where own and added elements lie in a tensor that is extended along one of its dimensions.
//!
//! Flattened, the extended tensor is a run of blocks, one per place in the dimensions before the
//! extended one (one in all where that is the first):
//!
//! ```text
//! file:      [own 0][own 1][own 2]
//! extended:  [own 0][added 0][own 1][added 1][own 2][added 2]
//! ```
//!
//! So a piece of the extended tensor is made of consecutive elements of the file.

use std::ops::Range;

use crate::merge::Extension;

/// The blocks of an extended tensor, in elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interleave {
    /// Elements of a block that are in the file.
    own: u64,
    /// Elements of a block.
    all: u64,
}

impl Interleave {
    /// For a tensor whose rows have `width` elements: the sizes behind the extended dimension.
    pub(crate) fn new(extension: Extension, width: u64) -> Interleave {
        Interleave {
            own: extension.from_rows.saturating_mul(width),
            all: extension.to_rows.saturating_mul(width),
        }
    }

    /// Elements of the file that come before element `at` of the extended tensor.
    pub(crate) fn own_before(self, at: u64) -> u64 {
        let Some(block) = at.checked_div(self.all) else { return 0 };
        block.saturating_mul(self.own).saturating_add((at % self.all).min(self.own))
    }

    /// Block and place in it of element `at` of the extended tensor.
    pub(crate) fn place(self, at: u64) -> (u64, u64) {
        at.checked_div(self.all).map_or((0, 0), |block| (block, at % self.all))
    }

    /// Runs of added elements among `numel` from `start` on, counted from there.
    pub(crate) fn added(self, start: u64, numel: usize) -> impl Iterator<Item = Range<usize>> {
        self.runs(start, numel).filter(|run| !run.own).map(|run| run.range)
    }

    /// Moves a piece's own elements, which lie together at the front of `bytes`, to their places.
    pub(crate) fn spread(self, bytes: &mut [u8], (start, numel): (u64, usize), item: usize) {
        let runs: Vec<Range<usize>> =
            self.runs(start, numel).filter(|run| run.own).map(|run| run.range).collect();
        let mut source = runs.iter().map(Range::len).sum::<usize>();
        // From the end: each goes to a place at or behind its own.
        for run in runs.into_iter().rev() {
            source -= run.len();
            if source != run.start {
                bytes.copy_within(source * item..(source + run.len()) * item, run.start * item);
            }
        }
    }

    fn runs(self, start: u64, numel: usize) -> impl Iterator<Item = Run> {
        let mut done = 0;
        std::iter::from_fn(move || {
            if done >= numel {
                return None;
            }
            let (_, place) = self.place(start.saturating_add(done as u64));
            let own = place < self.own;
            let left = if own { self.own - place } else { self.all.saturating_sub(place) };
            // A tensor without elements has no pieces; one step at least all the same.
            let length = usize::try_from(left).unwrap_or(numel).clamp(1, numel - done);
            let range = done..done + length;
            done += length;
            Some(Run { own, range })
        })
    }
}

/// Elements of a piece that are all in the file, or all added.
struct Run {
    own: bool,
    range: Range<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Side;
    use crate::merge::Edges;

    fn interleave(from_rows: u64, to_rows: u64, width: u64) -> Interleave {
        let edges = Edges::default();
        let extension = Extension { side: Side::Primary, from_rows, to_rows, axis: 1, edges };
        Interleave::new(extension, width)
    }

    /// The extended tensor of `blocks` blocks: the position in the file, or none for what is added.
    fn extended(blocks: u64, from_rows: u64, to_rows: u64, width: u64) -> Vec<Option<u64>> {
        let mut next = 0..;
        let rows = (0..blocks).flat_map(|_| 0..to_rows);
        rows.flat_map(|row| (0..width).map(move |_| row < from_rows))
            .map(|own| own.then(|| next.next()).flatten())
            .collect()
    }

    #[test]
    fn every_piece_is_spread_as_the_extended_tensor_says() {
        for (blocks, from, to, width) in
            [(1, 3, 5, 4), (1, 1, 2, 1), (7, 3, 5, 1), (2, 5, 6, 3), (4, 1, 9, 2), (3, 0, 2, 2)]
        {
            let interleave = interleave(from, to, width);
            let whole = extended(blocks, from, to, width);
            for start in 0..whole.len() {
                for numel in 1..=whole.len() - start {
                    let piece = &whole[start..start + numel];
                    let first = interleave.own_before(start as u64);
                    let own = interleave.own_before((start + numel) as u64) - first;
                    assert_eq!(own, piece.iter().flatten().count() as u64);
                    // Two bytes an element; 0xff where nothing was read.
                    let mut bytes = vec![0xff; 2 * numel];
                    for (at, slot) in bytes.chunks_exact_mut(2).take(own as usize).enumerate() {
                        slot.copy_from_slice(&(first as u16 + at as u16).to_le_bytes());
                    }
                    interleave.spread(&mut bytes, (start as u64, numel), 2);
                    let added: Vec<usize> =
                        interleave.added(start as u64, numel).flatten().collect();
                    for (at, wanted) in piece.iter().enumerate() {
                        let found = u16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]);
                        match wanted {
                            Some(position) => assert_eq!(u64::from(found), *position),
                            None => assert!(added.contains(&at)),
                        }
                    }
                    assert_eq!(added.len() as u64, numel as u64 - own);
                }
            }
        }
    }

    #[test]
    fn a_tensor_without_elements_has_no_places() {
        assert_eq!(interleave(3, 5, 0).own_before(0), 0);
        assert_eq!(interleave(3, 5, 0).place(7), (0, 0));
        assert_eq!(interleave(3, 5, 4).added(0, 0).count(), 0);
    }
}

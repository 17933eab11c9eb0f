//! Counts the memory that the machine allocates, filled or not, and holds it to the budget.

use crate::format::error::FormatError;
use crate::format::torch::pickle::budget::{budget, worded};
use crate::format::torch::pickle::stack::Machine;
use crate::format::torch::pickle::value::Ref;

/// The allocator's overhead for the block of a list, dict or text, in bytes.
const BLOCK_BYTES: usize = 16;

/// Growth in bytes that is checked at once, before the next check is due.
const LARGE_GROWTH: usize = 1 << 16;

/// Steps between two checks of the memory taken.
const STEPS_PER_CHECK: usize = 1 << 10;

/// Bytes of a block with room for `count` items of `item` bytes; 0 where it has no room.
fn block(count: usize, item: usize) -> usize {
    if count == 0 { 0 } else { count.saturating_mul(item).saturating_add(BLOCK_BYTES) }
}

impl Machine<'_> {
    /// Bytes that the machine has allocated.
    pub(super) fn taken_bytes(&self) -> u64 {
        let arena = &self.arena;
        let parts = [
            arena.values.bytes(),
            arena.depths.bytes(),
            arena.items.bytes(),
            arena.lists.bytes(),
            arena.dicts.bytes(),
            arena.long.bytes(),
            arena.decoded.bytes(),
            arena.attached.bytes(),
            self.memo.bytes(),
            // Twice: while it grows, the old stack is there beside the new one.
            self.stack.capacity().saturating_mul(2 * size_of::<Ref>()),
            self.held_bytes,
        ];
        parts.iter().fold(0, |sum, part| sum.saturating_add(*part as u64))
    }

    /// Compares the memory taken with the budget, every [`STEPS_PER_CHECK`] steps.
    pub(super) fn check_memory(&self, step: usize) -> Result<(), FormatError> {
        if step.is_multiple_of(STEPS_PER_CHECK) { self.check_growth(0) } else { Ok(()) }
    }

    /// Counts a block of a container or text that grew from `old` to `new` items of `item` bytes.
    pub(super) fn hold(&mut self, old: usize, new: usize, item: usize) -> Result<(), FormatError> {
        let more = block(new, item).saturating_sub(block(old, item));
        self.held_bytes = self.held_bytes.saturating_add(more);
        if more >= LARGE_GROWTH { self.check_growth(0) } else { Ok(()) }
    }

    /// Refuses where the memory taken and `more` bytes would be above the budget.
    pub(super) fn check_growth(&self, more: usize) -> Result<(), FormatError> {
        let most = budget(self.cursor.position() as u64, self.source.file_bytes);
        if self.taken_bytes().saturating_add(more as u64) <= most {
            return Ok(());
        }
        Err(self.limit(worded("values", most), "more"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::error::Rule;
    use crate::format::load::read_state_dict;
    use crate::format::torch::collect::ReadOptions;
    use crate::format::torch::pickle::names::opaque::OpaqueNames;
    use crate::format::torch::pickle::stack::Source;
    use crate::format::torch::pickle::write::pickler::data_pkl;
    use crate::format::torch::pickle::write::storages::EmitTensor;
    use crate::format::torch::shard_layout::ShardLayout;
    use crate::format::torch::zip::write::layout::StorageSum;
    use crate::tensor::DType;

    /// Runs a pickle in a file of `file_bytes`: how it ended, bytes taken, and the budget then.
    fn run(bytes: &[u8], file_bytes: u64) -> (Option<Rule>, u64, u64) {
        let total = bytes.len() as u64;
        let opaque = &OpaqueNames::default();
        let mut machine =
            Machine::new(Source { bytes, total, base: 0, what: "", file_bytes, opaque });
        let rule = machine.run().err().map(|error| error.rule);
        (rule, machine.taken_bytes(), budget(machine.cursor.position() as u64, file_bytes))
    }

    #[test]
    fn no_stream_takes_more_than_its_budget() {
        let pair_list = [b"](".as_slice(), &b"NN\x86".repeat(20_000), b"e\x85\x940"].concat();
        let ordered = b"ccollections\nOrderedDict\n\x940";
        let copies = [ordered, pair_list.as_slice()].concat();
        let unicode = [b"V".as_slice(), &b"\xe9".repeat(1000), b"\n0"].concat();
        let streams: [(&[u8], &[u8]); 11] = [
            (b"", b"]"),
            (b"", b"}"),
            (b"", b"N\x94"),
            (b"", b"N\x85"),
            (b"", b"\x8f"),
            (b"", b"Nr\xff\xff\xff\xff"),
            (b"", b"\x8b\x09\0\0\0\0\0\0\0\0\0\0\0\x01"),
            (b"", b"ctorch\nSize\n"),
            (b"", b"]Na"),
            (b"", &unicode),
            (&copies, b"h\0h\x01R0"),
        ];
        for (start, unit) in streams {
            let count = (8 << 20) / unit.len();
            let bytes = [start, &unit.repeat(count), b"."].concat();
            let (rule, taken, budget) = run(&bytes, 0);
            let words = String::from_utf8_lossy(unit.get(..8).unwrap_or(unit)).into_owned();
            // Before the check that refused, at most a thousand more values and one block.
            assert!(taken <= budget + (1 << 20), "{words:?}: {taken} of {budget}");
            assert!(matches!(rule, Some(Rule::PickleLimit | Rule::Pickle)), "{words:?}: {rule:?}");
        }
    }

    #[test]
    fn a_file_of_as_many_tensors_as_an_archive_may_have_is_read() {
        let tensors: Vec<EmitTensor> = (0..131_060)
            .map(|number: usize| {
                let name = format!("l.{number}.w");
                EmitTensor::contiguous(&name, DType::BFloat16, &[300, 1, 1, 1], number)
            })
            .collect();
        let sizes = vec![600; tensors.len()];
        let pickle = data_pkl(&tensors, &sizes).expect("a pickle");
        let (rule, taken, budget) = run(&pickle.bytes, 0);
        assert_eq!(rule, None);
        assert!(taken * 10 < budget * 9, "{taken} of {budget} for {}", pickle.bytes.len());

        let layout = ShardLayout::new("pytorch_model.bin", &tensors, &sizes).expect("a layout");
        let mut file = vec![0; usize::try_from(layout.total_bytes()).expect("a length")];
        let sums = vec![StorageSum::of(&[0; 600]); tensors.len()];
        let tail = layout.tail_pieces(&sums).expect("one sum per storage");
        for piece in layout.head_pieces().iter().chain(&tail) {
            let start = usize::try_from(piece.offset).expect("a position");
            let place = file.get_mut(start..).expect("inside");
            place[..piece.bytes.len()].copy_from_slice(&piece.bytes);
        }
        let state_dict = read_state_dict(&file, &ReadOptions::default()).expect("a good file");
        assert_eq!(state_dict.tensors.len(), 131_060);
    }
}

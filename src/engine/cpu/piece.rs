//! Reads, sums and blends one piece, as a worker of the CPU does.

use tch::Tensor;

use crate::engine::cpu::kernel::{Kernel, Widened};
use crate::engine::read::slot::{Digests, Slot};
use crate::engine::read::source::Source;
use crate::engine::task::errors::overflow_error;
use crate::engine::task::tensor_task::{ChildDecision, Task, Written};
use crate::engine::torch::calls::torch_error;
use crate::engine::torch::ops::{computed_kind, count_nonfinite, is_narrow};
use crate::engine::write::children::Children;
use crate::engine::write::span::SpanOut;
use crate::error::Result;
use crate::merge::{Action, MergeOptions, Sums};

/// Reads, sums and blends pieces, with what all of them share.
pub(crate) struct Merger<'j> {
    pub(crate) options: &'j MergeOptions,
    pub(crate) children: &'j Children<'j>,
    pub(crate) kernel: Kernel,
}

/// One piece of both sides, in memory.
pub(crate) struct Piece<'s> {
    slot: &'s Slot,
    /// First element.
    start: u64,
    numel: usize,
    pub(crate) views: [Option<Tensor>; 2],
    /// Bytes of each side.
    lengths: [usize; 2],
}

impl<'s> Piece<'s> {
    /// The piece that a slot holds: `numel` elements from `start` on.
    pub(crate) fn new(
        slot: &'s mut Slot,
        task: &Task<'_>,
        (start, numel): (u64, usize),
    ) -> Result<Piece<'s>> {
        let views = slot.views(task.sides(), numel)?;
        let lengths = task.sides().map(|side| side.map_or(0, |side| numel * side.item_bytes()));
        Ok(Piece { slot, start, numel, views, lengths })
    }

    fn bytes(&self, lane: usize) -> &[u8] {
        self.slot.bytes(lane, self.lengths[lane])
    }

    /// Whether both sides and the child have one dtype and the pieces are equal to the bit.
    fn same_bytes(&self, task: &Task<'_>) -> bool {
        let dtype = task.plan.dtype;
        task.sides().into_iter().flatten().all(|source| source.tensor.dtype == dtype)
            && self.bytes(0) == self.bytes(1)
    }
}

impl Merger<'_> {
    /// Reads a piece of both sides into a slot: first element and length.
    pub(crate) fn load<'s>(
        &self,
        slot: &'s mut Slot,
        task: &Task<'_>,
        place: (u64, usize),
        digests: &mut Digests,
    ) -> Result<Piece<'s>> {
        self.children.go_on()?;
        slot.load(task.sides(), place, digests)?;
        Piece::new(slot, task, place)
    }

    /// The piece widened, where both sides are there to be merged.
    pub(crate) fn widened<'l>(
        &mut self,
        piece: &'l Piece<'_>,
        task: &Task<'_>,
    ) -> Result<Option<Widened<'l>>> {
        let [Some(a), Some(b)] = &piece.views else { return Ok(None) };
        let exact = !is_narrow(computed_kind(task.plan.dtype)?);
        self.kernel.widen(a, b, exact).map(Some)
    }

    /// Sums of a piece; of one side alone its square.
    pub(crate) fn sums(
        &mut self,
        piece: &Piece<'_>,
        widened: Option<&Widened<'_>>,
    ) -> Result<Sums> {
        match (widened, &piece.views) {
            (Some(widened), _) => self.kernel.sums(widened),
            (None, [Some(a), _]) => {
                Ok(Sums { a_squared: self.kernel.square(a)?, ..Sums::default() })
            }
            (None, [None, Some(b)]) => {
                Ok(Sums { b_squared: self.kernel.square(b)?, ..Sums::default() })
            }
            (None, [None, None]) => Ok(Sums::default()),
        }
    }

    /// Makes a piece of one child; `last`: no other child needs the piece after this one.
    pub(crate) fn make(
        &mut self,
        task: &Task<'_>,
        piece: &Piece<'_>,
        widened: Option<&Widened<'_>>,
        (how, last): (Option<&ChildDecision>, bool),
        (out, written): (&mut SpanOut<'_>, &mut Written),
    ) -> Result<()> {
        let numel = piece.numel;
        let item = usize::try_from(task.plan.dtype.size_bytes()).unwrap_or(usize::MAX);
        match (how, &piece.views) {
            (Some(how), [Some(_), Some(_)]) => {
                if how.t == 0.0 {
                    self.copy(task, piece, 0, out)?;
                } else if how.t == 1.0 {
                    self.copy(task, piece, 1, out)?;
                } else if how.coefficients.path.is_line() && piece.same_bytes(task) {
                    // On a line, equal elements stay what they are; float32 would round them.
                    self.copy(task, piece, 0, out)?;
                } else {
                    let mut view = out.view(computed_kind(task.plan.dtype)?, numel)?;
                    let widened = widened.ok_or_else(|| torch_error("a piece is not widened"))?;
                    let factors = (how.coefficients.s0, how.coefficients.s1);
                    self.kernel.blend(widened, factors, (how.check, last), &mut view)?;
                }
            }
            _ => {
                let side = if task.plan.action == Action::CopySecondary { 1 } else { 0 };
                if let [Some(_), Some(_)] = task.sides()
                    && !piece.same_bytes(task)
                {
                    written.differs = true;
                }
                self.copy(task, piece, side, out)?;
            }
        }
        let converted =
            task.sides().into_iter().flatten().any(|s| s.tensor.dtype != task.plan.dtype);
        let check = how.is_some_and(|how| how.check) || (how.is_none() && converted);
        if check && task.must_be_finite() {
            let view = out.view(computed_kind(task.plan.dtype)?, numel)?;
            let (count, first) = count_nonfinite(&view)?;
            if count > 0 && !self.options.allow_nonfinite {
                return Err(overflow_error(task, count, piece.start + first.unwrap_or(0)));
            }
            written.nonfinite += count;
        }
        out.advance(numel * item)
    }

    /// Copies one side's piece to a child, converted where the dtypes differ.
    fn copy(
        &mut self,
        task: &Task<'_>,
        piece: &Piece<'_>,
        side: usize,
        out: &mut SpanOut<'_>,
    ) -> Result<()> {
        let missing = || torch_error("a side is missing");
        let source: &Source<'_> = task.sides()[side].ok_or_else(missing)?;
        if source.tensor.dtype == task.plan.dtype {
            let bytes = piece.bytes(side);
            out.bytes_mut(bytes.len())?.copy_from_slice(bytes);
            return Ok(());
        }
        let from = piece.views[side].as_ref().ok_or_else(missing)?;
        let mut to = out.view(computed_kind(task.plan.dtype)?, piece.numel)?;
        self.kernel.convert(from, &mut to)
    }
}

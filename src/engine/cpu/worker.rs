//! What one worker thread does with a span: the two passes, piece by piece.

use std::ops::Range;

use crate::engine::cpu::kernel::Kernel;
use crate::engine::cpu::piece::{Hands, Loaded};
use crate::engine::read::slot::{Digests, Keep, Slot};
use crate::engine::task::errors::{changed, nonfinite_error};
use crate::engine::task::tensor_task::{Decision, Scan, Task, Written, decide};
use crate::engine::task::worker::{Settle, Work};
use crate::engine::torch::calls::use_one_thread;
use crate::engine::torch::ops::{PIECE, WIDEST, count_nonfinite};
use crate::engine::write::children::Children;
use crate::engine::write::span::SpanOut;
use crate::error::Result;
use crate::merge::{Action, MergeOptions};
use crate::tensor::Crc;

/// Buffers and scratch of one thread.
pub(crate) struct Worker<'j> {
    hands: Hands<'j>,
    keep: &'j Keep,
    /// For pieces that are not kept.
    own: Slot,
}

impl<'j> Worker<'j> {
    pub(crate) fn new(
        options: &'j MergeOptions,
        (children, keep): (&'j Children<'j>, &'j Keep),
    ) -> Result<Worker<'j>> {
        use_one_thread();
        let hands = Hands { options, children, kernel: Kernel::new()? };
        Ok(Worker { hands, keep, own: Slot::new(WIDEST)? })
    }
}

impl Work for Worker<'_> {
    /// The first pieces stay in memory, as many as there is room for.
    fn scan(&mut self, task: &Task<'_>, span: Range<u64>) -> Result<Scan> {
        let mut scan = Scan::default();
        let (mut kept, mut rest) = (Digests::new(), Digests::new());
        for (start, numel) in pieces(&span) {
            // Once there was no room, nothing more is kept, so that the rest is one run of bytes.
            let full = scan.sums.len() > scan.kept.len();
            let mut slot = if full { None } else { self.keep.take()? };
            let digests = if slot.is_some() { &mut kept } else { &mut rest };
            let place = slot.as_mut().unwrap_or(&mut self.own);
            let loaded = self.hands.load(place, task, (start, numel), digests)?;
            let widened = self.hands.widened(&loaded, task)?;
            scan.sums.push(self.hands.sums(&loaded, widened.as_ref())?);
            scan.kept.extend(slot);
        }
        let (kept, rest) = (kept.crcs(), rest.crcs());
        scan.read = [0, 1].map(|lane| Crc::joined([kept[lane], rest[lane]].into_iter()));
        scan.rest = rest;
        Ok(scan)
    }

    fn write(
        &mut self,
        task: &Task<'_>,
        storage: usize,
        span: Range<u64>,
        decision: Option<&Decision>,
        kept: Vec<Slot>,
    ) -> Result<Written> {
        let options = self.hands.options;
        let mut written = Written::default();
        let mut digests = Digests::new();
        let offset = span.start.saturating_mul(task.plan.dtype.size_bytes());
        let mut outs = self.hands.children.spans(storage, offset)?;
        let check_parents = decision.is_none() && task.must_be_finite();
        let mut kept = kept.into_iter();
        for (start, numel) in pieces(&span) {
            let mut slot = kept.next();
            let loaded = match &mut slot {
                Some(slot) => {
                    self.hands.children.go_on()?;
                    Loaded::new(slot, task, numel)?
                }
                None => self.hands.load(&mut self.own, task, (start, numel), &mut digests)?,
            };
            let blends = decision.map_or(task.merges(), Decision::blends);
            let widened = match blends || check_parents {
                true => self.hands.widened(&loaded, task)?,
                false => None,
            };
            let mut piece_decision = None;
            if check_parents {
                let sums = self.hands.sums(&loaded, widened.as_ref())?;
                if !sums.is_finite() && !options.allow_nonfinite {
                    return Err(nonfinite_error(task));
                }
                // Linear needs no angle, so it is decided piece by piece.
                if task.plan.action == Action::Linear {
                    piece_decision = Some(decide(task.plan, options.method, &options.t, sums));
                }
                written.sums.push(sums);
            }
            for (child, out) in outs.iter_mut().enumerate() {
                let how = decision
                    .or(piece_decision.as_ref())
                    .and_then(|decision| decision.children.get(child));
                let how = (how, child + 1 == options.t.len());
                self.hands.make(task, &loaded, widened.as_ref(), how, (out, &mut written))?;
            }
            if let Some(slot) = slot {
                self.keep.give_back(slot);
            }
        }
        written.read = digests.crcs();
        written.out = outs.into_iter().map(SpanOut::finish).collect::<Result<_>>()?;
        Ok(written)
    }

    fn scan_and_write(
        &mut self,
        task: &Task<'_>,
        storage: usize,
        settle: &mut Settle<'_>,
    ) -> Result<Written> {
        let span = 0..task.plan.numel;
        let mut scan = self.scan(task, span.clone())?;
        let decision = settle(&scan)?;
        let kept = std::mem::take(&mut scan.kept);
        let mut written = self.write(task, storage, span, Some(&decision), kept)?;
        if written.read != scan.rest {
            return Err(changed(task));
        }
        written.sums = scan.sums;
        Ok(written)
    }

    fn count_side(&mut self, task: &Task<'_>, lane: usize) -> Result<(u64, Option<u64>)> {
        let (mut count, mut first) = (0, None);
        for (start, numel) in pieces(&(0..task.plan.numel)) {
            let loaded =
                self.hands.load(&mut self.own, task, (start, numel), &mut Digests::new())?;
            if let Some(view) = &loaded.views[lane] {
                let (found, position) = count_nonfinite(view)?;
                count += found;
                first = first.or(position.map(|position| start + position));
            }
        }
        Ok((count, first))
    }
}

/// First element and length of each piece of a span.
fn pieces(span: &Range<u64>) -> impl Iterator<Item = (u64, usize)> + use<> {
    let end = span.end;
    let starts = (span.start..end).step_by(PIECE);
    starts.map(move |start| (start, usize::try_from(end - start).unwrap_or(PIECE).min(PIECE)))
}

//! A worker thread of the CPU: runs both passes over a span, piece by piece.

use std::ops::Range;

use crate::engine::cpu::kernel::Kernel;
use crate::engine::cpu::piece::{Merger, Piece};
use crate::engine::read::slot::{Digests, Keep, Slot};
use crate::engine::task::errors::{changed, nonfinite_error};
use crate::engine::task::tensor_task::{Decision, Scan, Task, Written, decide, parts};
use crate::engine::task::worker::{Settle, Worker};
use crate::engine::torch::calls::use_one_thread;
use crate::engine::torch::ops::{PIECE, WIDEST, count_nonfinite};
use crate::engine::write::children::Children;
use crate::engine::write::span::SpanOut;
use crate::error::Result;
use crate::merge::MergeOptions;
use crate::tensor::Crc;

/// Buffers and scratch of one thread.
pub(crate) struct CpuWorker<'j> {
    merger: Merger<'j>,
    keep: &'j Keep,
    /// For pieces that are not kept.
    own: Slot,
}

impl<'j> CpuWorker<'j> {
    pub(crate) fn new(
        options: &'j MergeOptions,
        (children, keep): (&'j Children<'j>, &'j Keep),
    ) -> Result<CpuWorker<'j>> {
        use_one_thread();
        let merger = Merger { options, children, kernel: Kernel::new()? };
        Ok(CpuWorker { merger, keep, own: Slot::new(WIDEST)? })
    }
}

impl Worker for CpuWorker<'_> {
    /// The first pieces stay in memory, as many as there is room for.
    fn scan(&mut self, task: &Task<'_>, span: Range<u64>) -> Result<Scan> {
        let mut scan = Scan::default();
        let (mut kept, mut rest) = (Digests::new(), Digests::new());
        for (start, numel) in parts(&span, PIECE) {
            // After the first piece without a slot no more are kept, so that the rest is contiguous.
            let full = scan.sums.len() > scan.kept.len();
            let mut slot = if full { None } else { self.keep.take()? };
            let digests = if slot.is_some() { &mut kept } else { &mut rest };
            let place = slot.as_mut().unwrap_or(&mut self.own);
            let piece = self.merger.load(place, task, (start, numel), digests)?;
            let widened = self.merger.widened(&piece, task)?;
            scan.sums.push(self.merger.sums(&piece, widened.as_ref())?);
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
        let options = self.merger.options;
        let mut written = Written::default();
        let mut digests = Digests::new();
        let offset = span.start.saturating_mul(task.plan.dtype.size_bytes());
        let mut outs = self.merger.children.spans(storage, offset)?;
        let check_parents = decision.is_none() && (task.checks_parents() || task.merges());
        let mut kept = kept.into_iter();
        for (start, numel) in parts(&span, PIECE) {
            let mut slot = kept.next();
            let piece = match &mut slot {
                Some(slot) => {
                    self.merger.children.go_on()?;
                    Piece::new(slot, task, (start, numel))?
                }
                None => self.merger.load(&mut self.own, task, (start, numel), &mut digests)?,
            };
            let blends = task.plan.blends();
            let widened = match blends || check_parents {
                true => self.merger.widened(&piece, task)?,
                false => None,
            };
            let mut piece_decision = None;
            if check_parents {
                let sums = self.merger.sums(&piece, widened.as_ref())?;
                if !sums.is_finite() && !options.allow_nonfinite {
                    return Err(nonfinite_error(task));
                }
                // A line and a copy need no angle, so they are decided piece by piece.
                if task.merges() {
                    piece_decision = Some(decide(task.plan, options.method, sums));
                }
                written.sums.push(sums);
            }
            for (child, out) in outs.iter_mut().enumerate() {
                let how = decision
                    .or(piece_decision.as_ref())
                    .and_then(|decision| decision.children.get(child));
                let how = (how, child + 1 == options.children.len());
                self.merger.make(task, &piece, widened.as_ref(), how, (out, &mut written))?;
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
        for (start, numel) in parts(&(0..task.plan.numel), PIECE) {
            let piece =
                self.merger.load(&mut self.own, task, (start, numel), &mut Digests::new())?;
            if let Some(view) = &piece.views[lane] {
                let (found, position) = count_nonfinite(view)?;
                count += found;
                first = first.or(position.map(|position| start + position));
            }
        }
        Ok((count, first))
    }
}

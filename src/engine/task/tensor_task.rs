//! `Task`: one tensor of the child to be made, with its sources and the results of its spans so
//! far.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::checkpoint::{Checkpoint, Side};
use crate::engine::read::edge_rows::filler;
use crate::engine::read::mapped_rows::MappedRows;
use crate::engine::read::slot::Slot;
use crate::engine::read::source::Source;
use crate::engine::torch::ops::{PIECE, may_overflow};
use crate::error::Result;
use crate::format::StorageSum;
use crate::merge::{
    Action, Coefficients, KnownBuffer, Mapped, MergeOptions, Method, PlannedStorage, Sums,
    coefficients,
};
use crate::tensor::Crc;

/// Elements per span, the unit of work that a worker takes: 64 pieces.
const SPAN: u64 = 64 * PIECE as u64;

/// A planned tensor with its sides open.
pub(crate) struct Task<'a> {
    /// What was planned.
    pub(crate) plan: &'a PlannedStorage,
    /// The primary's side.
    pub(crate) primary: Option<Source<'a>>,
    /// The secondary's side.
    pub(crate) secondary: Option<Source<'a>>,
    progress: Mutex<Progress>,
}

/// What the workers have found so far.
#[derive(Default)]
struct Progress {
    scanned: Vec<Option<Scan>>,
    scans_left: usize,
    decision: Option<Arc<Decision>>,
    written: Vec<Option<Written>>,
    writes_left: usize,
}

/// What pass one found in a span.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Sums of each piece, in order.
    pub(crate) sums: Vec<Sums>,
    /// CRC-32 and length of what was read of the primary and the secondary.
    pub(crate) read: [Crc; 2],
    /// The first pieces, where they are kept for pass two.
    pub(crate) kept: Vec<Slot>,
    /// Of what was read, the part that pass two will read again.
    pub(crate) rest: [Crc; 2],
}

/// What pass two made of a span.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    /// Sums of each piece, where pass one did not take them.
    pub(crate) sums: Vec<Sums>,
    /// CRC-32 and length of what was read of the primary and the secondary.
    pub(crate) read: [Crc; 2],
    /// Per child: CRC-32, length and first bytes of what was written.
    pub(crate) out: Vec<(Crc, [u8; 8])>,
    /// Whether integer tensors differ between the parents.
    pub(crate) differs: bool,
    /// NaN and Inf in each child, where they were allowed.
    pub(crate) nonfinite: u64,
    /// What computed it.
    pub(crate) made_on: MadeOn,
}

/// What computed a span of the child. Devices are positions in [`crate::engine::Settings`]' list.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
pub(crate) enum MadeOn {
    /// The CPU.
    #[default]
    Cpu,
    /// A device.
    Device(usize),
    /// The CPU, since this device ran out of memory.
    CpuInsteadOf(usize),
}

/// How a tensor is merged, once its sums are known.
#[derive(Clone, Debug)]
pub(crate) struct Decision {
    /// Sums over the whole tensor.
    pub(crate) sums: Sums,
    /// Per child.
    pub(crate) children: Vec<ChildDecision>,
}

/// The part of a decision that depends on t.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChildDecision {
    pub(crate) t: f64,
    pub(crate) coefficients: Coefficients,
    /// Whether the child's elements must be looked at for overflow.
    pub(crate) check: bool,
}

/// A whole tensor, when its last span is written.
pub(crate) struct Finished {
    /// Sums over the whole tensor.
    pub(crate) sums: Sums,
    /// Per child.
    pub(crate) out: Vec<StorageSum>,
    /// Whether integer tensors differ.
    pub(crate) differs: bool,
    /// NaN and Inf in the children.
    pub(crate) nonfinite: u64,
    /// What computed it, each once.
    pub(crate) made_on: BTreeSet<MadeOn>,
    /// CRC-32 of the storages of primary and secondary, where their files keep none.
    pub(crate) contents: [Option<u32>; 2],
}

impl<'a> Task<'a> {
    pub(crate) fn new(
        plan: &'a PlannedStorage,
        primary: &'a Checkpoint,
        secondary: &'a Checkpoint,
        options: &MergeOptions,
    ) -> Result<Task<'a>> {
        let open = |checkpoint: &'a Checkpoint, position: Option<usize>| {
            position.map(|position| Source::new(checkpoint, position)).transpose()
        };
        let mut a = open(primary, plan.primary)?;
        let mut b = open(secondary, plan.secondary)?;
        for side in [Side::Primary, Side::Secondary] {
            let Some(Mapped { map, axis, edges }) = plan.mapped(side) else { continue };
            let (short, long) = match side {
                Side::Primary => (&mut a, &b),
                Side::Secondary => (&mut b, &a),
            };
            let Some(short) = short else { continue };
            let behind = short.tensor.layout.shape.get(axis + 1..).unwrap_or_default();
            let width = behind.iter().fold(1, |width: u64, size| width.saturating_mul(*size));
            let rows = MappedRows::new(map, width);
            if rows.missing() > 0 {
                let how = (&rows, axis, edges);
                short.filler = Some(filler(options.extend, how, short, long.as_ref())?);
            }
            short.rows = Some(rows);
        }
        let spans = usize::try_from(plan.numel.div_ceil(SPAN)).unwrap_or(usize::MAX);
        let progress = Progress {
            scanned: (0..spans).map(|_| None).collect(),
            scans_left: spans,
            decision: None,
            written: vec![None; spans],
            writes_left: spans,
        };
        Ok(Task { plan, primary: a, secondary: b, progress: Mutex::new(progress) })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of spans.
    pub(crate) fn spans(&self) -> usize {
        self.progress().written.len()
    }

    /// Elements of a span.
    pub(crate) fn span(&self, span: usize) -> Range<u64> {
        let start = (span as u64).saturating_mul(SPAN).min(self.plan.numel);
        start..start.saturating_add(SPAN).min(self.plan.numel)
    }

    /// Whether both parents are interpolated.
    pub(crate) fn merges(&self) -> bool {
        self.plan.action.is_merge()
    }

    /// Whether NaN and Inf in it are a fault.
    pub(crate) fn must_be_finite(&self) -> bool {
        let mask = self.plan.buffer.is_some_and(KnownBuffer::may_be_nonfinite);
        self.plan.dtype.is_floating() && !mask
    }

    /// Whether its parents are looked at for NaN and Inf when they are copied. A model that is written
    /// anew as it is may hold them.
    pub(crate) fn checks_parents(&self) -> bool {
        let verbatim = self.plan.action == Action::Copy
            && self.primary.as_ref().is_some_and(|a| a.tensor.dtype == self.plan.dtype);
        self.must_be_finite() && !verbatim
    }

    /// Whether the angle must be known before the first element can be made.
    pub(crate) fn needs_scan(&self) -> bool {
        self.plan.action.needs_sums() && self.plan.blends()
    }

    /// Both sides, primary first.
    pub(crate) fn sides(&self) -> [Option<&Source<'a>>; 2] {
        [self.primary.as_ref(), self.secondary.as_ref()]
    }

    /// Bytes of both sides in memory, extended.
    pub(crate) fn kept_bytes(&self) -> u64 {
        let of =
            |source: &Source<'_>| self.plan.numel.saturating_mul(source.tensor.dtype.size_bytes());
        self.sides().into_iter().flatten().map(of).fold(0, u64::saturating_add)
    }

    /// Takes what pass one found in a span. After the last one `settle` decides, from all of them;
    /// true then.
    ///
    /// # Errors
    /// Those of `settle`.
    pub(crate) fn scanned(
        &self,
        span: usize,
        scan: Scan,
        settle: &dyn Fn(&[&Scan]) -> Result<Decision>,
    ) -> Result<bool> {
        let mut progress = self.progress();
        if let Some(slot) = progress.scanned.get_mut(span)
            && slot.replace(scan).is_none()
        {
            progress.scans_left -= 1;
        }
        if progress.scans_left > 0 {
            return Ok(false);
        }
        let scans: Vec<&Scan> = progress.scanned.iter().flatten().collect();
        let decision = settle(&scans)?;
        progress.decision = Some(Arc::new(decision));
        Ok(true)
    }

    /// What pass one left of a span: the pieces that it kept, and CRCs of what is to be read again.
    pub(crate) fn scan_of(&self, span: usize) -> Option<(Vec<Slot>, [Crc; 2])> {
        let mut progress = self.progress();
        let scan = progress.scanned.get_mut(span)?.as_mut()?;
        Some((std::mem::take(&mut scan.kept), scan.rest))
    }

    /// The decision, once taken.
    pub(crate) fn decision(&self) -> Option<Arc<Decision>> {
        self.progress().decision.clone()
    }

    /// Takes what pass two made of a span; all of them when it was the last one.
    pub(crate) fn written(&self, span: usize, written: Written) -> Option<Vec<Written>> {
        let mut progress = self.progress();
        if let Some(slot) = progress.written.get_mut(span)
            && slot.replace(written).is_none()
        {
            progress.writes_left -= 1;
        }
        if progress.writes_left > 0 {
            return None;
        }
        progress.written.iter_mut().map(Option::take).collect()
    }
}

/// Cuts a span into parts of `length` elements, the last one shorter: first element and length.
pub(crate) fn parts(
    span: &Range<u64>,
    length: usize,
) -> impl Iterator<Item = (u64, usize)> + use<> {
    let end = span.end;
    (span.start..end)
        .step_by(length)
        .map(move |start| (start, usize::try_from(end - start).unwrap_or(length).min(length)))
}

/// Bytes of the widest element of the parents' tensors that take two passes.
pub(crate) fn widest_scanned(tasks: &[Task<'_>]) -> usize {
    let sides = tasks.iter().filter(|task| task.needs_scan()).flat_map(Task::sides).flatten();
    sides.map(Source::item_bytes).max().unwrap_or(1)
}

/// Sums over all spans, pieces in order.
pub(crate) fn add_up<'s>(spans: impl Iterator<Item = &'s Vec<Sums>>) -> Sums {
    let mut total = Sums::default();
    for piece in spans.flatten() {
        total.add(*piece);
    }
    total
}

/// The coefficients of every child, from the sums over the whole tensor.
pub(crate) fn decide(plan: &PlannedStorage, method: Method, sums: Sums) -> Decision {
    let children = plan
        .t
        .iter()
        .map(|t| {
            let coefficients = coefficients(method, *t, &sums);
            let check = may_overflow(plan.dtype, coefficients.s0, coefficients.s1, &sums);
            ChildDecision { t: *t, coefficients, check }
        })
        .collect();
    Decision { sums, children }
}

//! What one worker thread does with a span: read, sum, blend, write.

use std::ops::Range;

use crc_fast::CrcAlgorithm::Crc32IsoHdlc;
use crc_fast::Digest;
use tch::Tensor;

use crate::checkpoint::Side;
use crate::engine::buffer::Buffer;
use crate::engine::explain::{nonfinite_error, overflow_error};
use crate::engine::kernel::{
    Kernel, PIECE, WIDEST, Widened, computed_kind, count_nonfinite, is_narrow,
};
use crate::engine::source::Source;
use crate::engine::span_out::{Sink, SpanOut};
use crate::engine::task::{ChildDecision, Decision, Scan, SpanCrc, Task, Written, decide};
use crate::engine::torch::{TorchResult, torch_error, torch_kind, use_one_thread};
use crate::error::Result;
use crate::merge::{Action, MergeOptions, Path, Sums};

/// Buffers and scratch of one thread.
pub(crate) struct Worker<'j> {
    options: &'j MergeOptions,
    sink: &'j dyn Sink,
    kernel: Kernel,
    /// One piece of each side, or both sides whole where they are kept between the passes.
    lanes: [Buffer; 2],
}

/// One piece of both sides, in memory.
struct Loaded {
    numel: usize,
    views: [Option<Tensor>; 2],
    /// Byte ranges in the lanes.
    ranges: [Range<usize>; 2],
}

impl Loaded {
    /// The piece widened, where both sides are there to be merged.
    fn widened(&self, kernel: &mut Kernel, task: &Task<'_>) -> Result<Option<Widened<'_>>> {
        let [Some(a), Some(b)] = &self.views else { return Ok(None) };
        let exact = !is_narrow(computed_kind(task.plan.dtype)?);
        kernel.widen(a, b, exact).map(Some)
    }
}

/// Running CRCs of what is read of both sides.
pub(crate) struct Digests(pub(crate) [Digest; 2]);

impl Digests {
    pub(crate) fn new() -> Digests {
        Digests([Digest::new(Crc32IsoHdlc), Digest::new(Crc32IsoHdlc)])
    }

    pub(crate) fn spans(&self) -> [SpanCrc; 2] {
        [span_crc(&self.0[0]), span_crc(&self.0[1])]
    }
}

pub(crate) fn span_crc(digest: &Digest) -> SpanCrc {
    SpanCrc {
        crc32: u32::try_from(digest.finalize()).unwrap_or_default(),
        bytes: digest.get_amount(),
    }
}

impl<'j> Worker<'j> {
    pub(crate) fn new(options: &'j MergeOptions, sink: &'j dyn Sink) -> Result<Worker<'j>> {
        use_one_thread();
        Ok(Worker {
            options,
            sink,
            kernel: Kernel::new()?,
            lanes: [Buffer::new(PIECE * WIDEST)?, Buffer::new(PIECE * WIDEST)?],
        })
    }

    /// Pass one over a span: sums and CRCs.
    pub(crate) fn scan(&mut self, task: &Task<'_>, span: Range<u64>) -> Result<Scan> {
        self.scan_at(task, span, 0)
    }

    /// Pass two over a span: reads again and writes.
    pub(crate) fn write(
        &mut self,
        task: &Task<'_>,
        storage: usize,
        span: Range<u64>,
        decision: Option<&Decision>,
    ) -> Result<Written> {
        self.write_span(task, storage, span, decision, None)
    }

    /// Both passes over a small tensor, which is read once and kept in between.
    pub(crate) fn scan_and_write(
        &mut self,
        task: &Task<'_>,
        storage: usize,
        settle: &mut dyn FnMut(&Scan) -> Result<Decision>,
    ) -> Result<Written> {
        let span = 0..task.plan.numel;
        let numel = usize::try_from(span.end).map_err(|_| torch_error("tensor is too large"))?;
        for (lane, side) in task.sides().into_iter().enumerate() {
            let bytes = numel.saturating_mul(side.map_or(0, Source::item_bytes));
            if self.lanes[lane].len() < bytes {
                self.lanes[lane] = Buffer::new(bytes)?;
            }
        }
        let mut all = Scan::default();
        let mut digests = Digests::new();
        for start in pieces(&span) {
            let at = usize::try_from(start).map_err(|_| torch_error("tensor is too large"))?;
            let numel = piece_numel(start, &span);
            let loaded = self.load(task, start, numel, at, &mut digests)?;
            let widened = loaded.widened(&mut self.kernel, task)?;
            all.sums.push(self.piece_sums(&loaded, widened.as_ref())?);
        }
        all.read = digests.spans();
        let decision = settle(&all)?;
        let mut written = self.write_span(task, storage, span, Some(&decision), Some(()))?;
        written.sums = all.sums;
        written.read = all.read;
        Ok(written)
    }

    fn scan_at(&mut self, task: &Task<'_>, span: Range<u64>, at: usize) -> Result<Scan> {
        let mut scan = Scan::default();
        let mut digests = Digests::new();
        for start in pieces(&span) {
            let loaded = self.load(task, start, piece_numel(start, &span), at, &mut digests)?;
            let widened = loaded.widened(&mut self.kernel, task)?;
            scan.sums.push(self.piece_sums(&loaded, widened.as_ref())?);
        }
        scan.read = digests.spans();
        Ok(scan)
    }

    fn piece_sums(&mut self, loaded: &Loaded, widened: Option<&Widened<'_>>) -> Result<Sums> {
        match (widened, &loaded.views) {
            (Some(piece), _) => self.kernel.sums(piece),
            (None, [Some(a), _]) => {
                Ok(Sums { a_squared: self.kernel.square(a)?, ..Sums::default() })
            }
            (None, [None, Some(b)]) => {
                Ok(Sums { b_squared: self.kernel.square(b)?, ..Sums::default() })
            }
            (None, [None, None]) => Ok(Sums::default()),
        }
    }

    fn write_span(
        &mut self,
        task: &Task<'_>,
        storage: usize,
        span: Range<u64>,
        decision: Option<&Decision>,
        kept: Option<()>,
    ) -> Result<Written> {
        let n_children = self.options.t.len();
        let mut written = Written::default();
        let mut digests = Digests::new();
        let offset = span.start.saturating_mul(task.plan.dtype.size_bytes());
        let mut streams = (0..n_children)
            .map(|child| SpanOut::new(self.sink, child, storage, offset))
            .collect::<Result<Vec<_>>>()?;
        let check_parents = decision.is_none() && task.plan.dtype.is_floating();
        for start in pieces(&span) {
            let numel = piece_numel(start, &span);
            let at = if kept.is_some() { usize::try_from(start).unwrap_or(0) } else { 0 };
            let loaded = match kept {
                Some(()) => self.loaded(task, numel, at)?,
                None => self.load(task, start, numel, at, &mut digests)?,
            };
            let mut piece_decision = None;
            let blends = decision.map_or(task.merges(), Decision::blends);
            let widened = match blends || check_parents {
                true => loaded.widened(&mut self.kernel, task)?,
                false => None,
            };
            if check_parents {
                let sums = self.piece_sums(&loaded, widened.as_ref())?;
                if !finite(&sums) && !self.options.allow_nonfinite {
                    return Err(nonfinite_error(task));
                }
                // Linear needs no angle, so it is decided piece by piece.
                if task.plan.action == Action::Linear {
                    piece_decision =
                        Some(decide(task.plan, self.options.method, &self.options.t, sums));
                }
                written.sums.push(sums);
            }
            for (child, stream) in streams.iter_mut().enumerate() {
                let how = decision
                    .or(piece_decision.as_ref())
                    .and_then(|decision| decision.children.get(child));
                self.make(task, &loaded, widened.as_ref(), how, (stream, &mut written))?;
            }
        }
        written.read = digests.spans();
        written.out = streams.into_iter().map(SpanOut::finish).collect::<Result<_>>()?;
        Ok(written)
    }

    /// Makes one piece of one child.
    fn make(
        &mut self,
        task: &Task<'_>,
        loaded: &Loaded,
        widened: Option<&Widened<'_>>,
        how: Option<&ChildDecision>,
        (stream, written): (&mut SpanOut<'_>, &mut Written),
    ) -> Result<()> {
        let numel = loaded.numel;
        let item = usize::try_from(task.plan.dtype.size_bytes()).unwrap_or(WIDEST);
        let length = numel * item;
        match (how, &loaded.views) {
            (Some(how), [Some(_), Some(_)]) => {
                if how.t == 0.0 {
                    self.copy(task, loaded, 0, stream)?;
                } else if how.t == 1.0 {
                    self.copy(task, loaded, 1, stream)?;
                } else if how.coefficients.path != Path::Slerp && self.same_bytes(task, loaded) {
                    // On a line, equal elements stay what they are; float32 would round them.
                    self.copy(task, loaded, 0, stream)?;
                } else {
                    let mut out = stream.view(computed_kind(task.plan.dtype)?, numel)?;
                    let piece = widened.ok_or_else(|| torch_error("a piece is not widened"))?;
                    let factors = (how.coefficients.s0, how.coefficients.s1);
                    self.kernel.blend(piece, factors, how.check, &mut out)?;
                }
            }
            _ => {
                let side = if task.plan.action == Action::CopySecondary { 1 } else { 0 };
                if let [Some(_), Some(_)] = task.sides()
                    && !self.same_bytes(task, loaded)
                {
                    written.differs = true;
                }
                self.copy(task, loaded, side, stream)?;
            }
        }
        let converted =
            task.sides().into_iter().flatten().any(|s| s.tensor.dtype != task.plan.dtype);
        let check = how.is_some_and(|how| how.check) || (how.is_none() && converted);
        if check && task.plan.dtype.is_floating() {
            let out = stream.view(computed_kind(task.plan.dtype)?, numel)?;
            let (count, first) = count_nonfinite(&out)?;
            if count > 0 && !self.options.allow_nonfinite {
                return Err(overflow_error(task, count, first));
            }
            written.nonfinite += count;
        }
        stream.advance(length)
    }

    /// Copies one side's piece to a child, converted where the dtypes differ.
    fn copy(
        &self,
        task: &Task<'_>,
        loaded: &Loaded,
        side: usize,
        stream: &mut SpanOut<'_>,
    ) -> Result<()> {
        let source = task.sides()[side].ok_or_else(|| torch_error("a side is missing"))?;
        if source.tensor.dtype == task.plan.dtype {
            let range = loaded.ranges[side].clone();
            let bytes = &self.lanes[side].bytes()[range];
            stream.bytes_mut(bytes.len())?.copy_from_slice(bytes);
            return Ok(());
        }
        let view = loaded.views[side].as_ref().ok_or_else(|| torch_error("a side is missing"))?;
        let mut out = stream.view(computed_kind(task.plan.dtype)?, loaded.numel)?;
        out.f_copy_(view).or_torch("convert")
    }

    /// Whether both sides and the child have one dtype and the pieces are equal to the bit.
    fn same_bytes(&self, task: &Task<'_>, loaded: &Loaded) -> bool {
        let dtype = task.plan.dtype;
        task.sides().into_iter().flatten().all(|source| source.tensor.dtype == dtype)
            && self.lanes[0].bytes()[loaded.ranges[0].clone()]
                == self.lanes[1].bytes()[loaded.ranges[1].clone()]
    }

    /// Reads a piece of both sides into the lanes, from element `at` of the lanes on.
    fn load(
        &mut self,
        task: &Task<'_>,
        start: u64,
        numel: usize,
        at: usize,
        digests: &mut Digests,
    ) -> Result<Loaded> {
        self.sink.go_on()?;
        let loaded = self.loaded(task, numel, at)?;
        // The longer side first: the shorter one's new rows may be taken from it.
        let short = task.plan.extension.map(|extension| extension.side);
        let order = if short == Some(Side::Primary) { [1, 0] } else { [0, 1] };
        for lane in order {
            let Some(source) = task.sides()[lane] else { continue };
            let own =
                usize::try_from(source.numel.saturating_sub(start)).unwrap_or(numel).min(numel);
            let range = &loaded.ranges[lane];
            let own_bytes = range.start..range.start + own * source.item_bytes();
            let bytes = &mut self.lanes[lane].bytes_mut()[own_bytes];
            if !bytes.is_empty() {
                source.read(start, bytes)?;
                digests.0[lane].update(bytes);
            }
            if own == numel {
                continue;
            }
            let (Some(filler), Some(view)) = (&source.filler, &loaded.views[lane]) else {
                return Err(torch_error("a tensor is shorter than planned").tensor(&task.plan.name));
            };
            let added = to_i64(numel - own)?;
            let mut rows = view.f_narrow(0, to_i64(own)?, added).or_torch("take a view")?;
            let other = match &loaded.views[1 - lane] {
                Some(other) => {
                    Some(other.f_narrow(0, to_i64(own)?, added).or_torch("take a view")?)
                }
                None => None,
            };
            filler.fill(start + own as u64, &mut rows, other.as_ref())?;
        }
        Ok(loaded)
    }

    /// Views of a piece that is, or will be, in the lanes.
    fn loaded(&self, task: &Task<'_>, numel: usize, at: usize) -> Result<Loaded> {
        let mut views = [None, None];
        let mut ranges = [0..0, 0..0];
        for (lane, side) in task.sides().into_iter().enumerate() {
            let Some(source) = side else { continue };
            let item = source.item_bytes();
            ranges[lane] = at * item..(at + numel) * item;
            views[lane] = match torch_kind(source.tensor.dtype) {
                Some(kind) => Some(self.lanes[lane].view(at * item, kind, numel)?),
                None => None,
            };
        }
        Ok(Loaded { numel, views, ranges })
    }

    /// Counts NaN and Inf of one side of a tensor, reading it again; the first one's flat index.
    pub(crate) fn count_side(
        &mut self,
        task: &Task<'_>,
        lane: usize,
    ) -> Result<(u64, Option<u64>)> {
        let span = 0..task.plan.numel;
        let (mut count, mut first) = (0, None);
        for start in pieces(&span) {
            let numel = piece_numel(start, &span);
            let loaded = self.load(task, start, numel, 0, &mut Digests::new())?;
            if let Some(view) = &loaded.views[lane] {
                let (found, position) = count_nonfinite(view)?;
                count += found;
                first = first.or(position.map(|position| start + position));
            }
        }
        Ok((count, first))
    }
}

fn to_i64(value: usize) -> Result<i64> {
    i64::try_from(value).map_err(|_| torch_error("tensor is too large"))
}

fn pieces(span: &Range<u64>) -> impl Iterator<Item = u64> + use<> {
    (span.start..span.end).step_by(PIECE)
}

fn piece_numel(start: u64, span: &Range<u64>) -> usize {
    usize::try_from(span.end - start).unwrap_or(PIECE).min(PIECE)
}

fn finite(sums: &Sums) -> bool {
    sums.is_finite()
}

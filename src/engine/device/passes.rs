//! Runs the two passes over a span on a device: read, copy up, sum, blend, copy down, write.
//!
//! Every copy is waited for. Disk, link and kernels overlap because a device has several workers,
//! each on its own stream.

use std::ops::Range;

use tch::{Device, Tensor};

use crate::engine::cuda::opening;
use crate::engine::cuda::runtime::StreamGuard;
use crate::engine::device::check::Checker;
use crate::engine::device::host::{Chunk, HostBuffers, sources};
use crate::engine::device::kernel::Kernel;
use crate::engine::device::memory::{Block, FEWEST_PIECES, Places, kept_places};
use crate::engine::device::share::Share;
use crate::engine::device::trouble::{Attempt, DeviceResult, Trouble};
use crate::engine::devices::ComputeDevice;
use crate::engine::read::slot::Digests;
use crate::engine::read::source::Source;
use crate::engine::task::errors::{nonfinite_error, overflow_error};
use crate::engine::task::tensor_task::{
    ChildDecision, Decision, Scan, Task, Written, add_up, decide, parts,
};
use crate::engine::torch::buffer::warn_pageable;
use crate::engine::torch::calls::torch_error;
use crate::engine::torch::ops::{PIECE, computed_kind, count_nonfinite, part};
use crate::engine::write::children::Children;
use crate::engine::write::span::SpanOut;
use crate::merge::{MergeOptions, Sums};

/// One worker's buffers on both sides of the link, and what it does with them.
pub(crate) struct Passes<'j> {
    options: &'j MergeOptions,
    children: &'j Children<'j>,
    device: &'j ComputeDevice,
    host: HostBuffers,
    checker: Checker,
    places: Places,
    item: usize,
    /// Bytes of the block, when it is taken; halved when they can't be had.
    block_bytes: usize,
    block: Option<Block>,
    /// Per piece of the tensor in the block, whether both sides are equal to the bit.
    kept: Option<Vec<bool>>,
    /// Declared last, so that the block is given back on the stream that used it.
    _stream: Option<StreamGuard>,
}

/// Elements of each tensor or span that are compared with the CPU's.
const CHECKED: usize = 8192;

/// A chunk that is on the device.
struct Uploaded {
    views: [Tensor; 2],
    equal: Vec<bool>,
}

impl<'j> Passes<'j> {
    pub(crate) fn new(
        options: &'j MergeOptions,
        children: &'j Children<'j>,
        device: &'j ComputeDevice,
        share: &Share,
    ) -> Attempt<Passes<'j>> {
        let places = Places::new(share.pieces, share.item);
        let stream = match device.device {
            Device::Cuda(index) => opening::open()?.0.own_stream(index).map(Some),
            _ => device.faults.as_ref().map_or(Ok(()), |faults| faults.stream()).map(|()| None),
        };
        // The child is the same, only later.
        let stream = stream.unwrap_or_else(|error| {
            log::warn!(
                "{}: a worker shares the default stream and is slower: {error}",
                device.name
            );
            None
        });
        if let Some(faults) = &device.faults {
            faults.lock_pages().unwrap_or_else(|error| warn_pageable(&error));
        }
        Ok(Passes {
            options,
            children,
            device,
            host: HostBuffers::new(&places, share.item, device.device)?,
            checker: Checker::new()?,
            places,
            item: share.item,
            block_bytes: share.block_bytes,
            block: None,
            kept: None,
            _stream: stream,
        })
    }

    /// Gives the block back and halves the pieces; false where there are too few to halve.
    pub(crate) fn halve(&mut self) -> bool {
        // The next try must find the memory free.
        self.block = None;
        self.kept = None;
        if self.places.pieces <= FEWEST_PIECES {
            return false;
        }
        self.places = Places::new(self.places.pieces / 2, self.item);
        self.block_bytes = (self.block_bytes / 2).max(self.places.kept);
        let (name, pieces) = (&self.device.name, self.places.pieces);
        log::info!("{name} is out of memory: {pieces} pieces at once from now on");
        true
    }

    /// The chunks of a span.
    fn chunks(&self, span: &Range<u64>) -> impl Iterator<Item = (u64, usize)> + use<> {
        parts(span, self.places.chunk())
    }

    /// Sums of a span; the tensor stays in the block where `keep` says so and it fits.
    pub(crate) fn scan_span(
        &mut self,
        task: &Task<'_>,
        span: &Range<u64>,
        keep: bool,
    ) -> Attempt<Scan> {
        self.take_block()?;
        self.kept = None;
        let numel = usize::try_from(task.plan.numel).unwrap_or(usize::MAX);
        let keep = keep && self.kept_at(task, numel)?.is_some();
        let mut equal = Vec::new();
        let mut scan = Scan::default();
        let mut digests = Digests::new();
        for (start, numel) in self.chunks(span) {
            self.children.go_on()?;
            let chunk = self.host.load(task, start, numel, &mut digests)?;
            let up = self.upload(task, start, chunk, keep)?;
            let sums = self.sums(&up)?;
            scan.sums.extend(sums);
            equal.extend(up.equal);
        }
        self.check_last_sums(task, span, &scan)?;
        scan.read = digests.crcs();
        scan.rest = scan.read;
        if keep {
            self.kept = Some(equal);
        }
        Ok(scan)
    }

    /// Makes a span of every child, from the block where the tensor is in it.
    pub(crate) fn write_span(
        &mut self,
        task: &Task<'_>,
        storage: usize,
        span: &Range<u64>,
        decision: Option<&Decision>,
    ) -> Attempt<Written> {
        let kept = self.kept.take();
        self.take_block()?;
        let mut written = Written::default();
        let mut digests = Digests::new();
        let offset = span.start.saturating_mul(task.plan.dtype.size_bytes());
        let mut outs = self.children.spans(storage, offset)?;
        for (start, numel) in self.chunks(span) {
            self.children.go_on()?;
            let up = match &kept {
                Some(equal) => self.uploaded(task, start, numel, equal)?,
                None => {
                    let chunk = self.host.load(task, start, numel, &mut digests)?;
                    self.upload(task, start, chunk, false)?
                }
            };
            let mut chunk_decision = None;
            if decision.is_none() {
                let sums = self.sums(&up)?;
                let total = add_up([&sums].into_iter());
                if !total.is_finite() && !self.options.allow_nonfinite {
                    return Err(nonfinite_error(task).into());
                }
                // A line and a copy need no angle, so they are decided chunk by chunk.
                let how = decide(task.plan, self.options.method, total);
                chunk_decision = Some(how);
                written.sums.extend(sums);
            }
            let decision = decision.or(chunk_decision.as_ref());
            let last = start + numel as u64 == span.end;
            for (child, out) in outs.iter_mut().enumerate() {
                let how = decision.and_then(|decision| decision.children.get(child));
                let how = how.ok_or_else(|| torch_error("a child has no decision"))?;
                let blended = self.make(task, &up, numel, how)?;
                let check = blended.filter(|_| last);
                written.nonfinite += self.bring_down(task, (start, numel), how, check, out)?;
            }
        }
        written.read = digests.crcs();
        written.out = outs.into_iter().map(SpanOut::finish).collect::<crate::error::Result<_>>()?;
        Ok(written)
    }

    /// Makes a chunk of one child on the device; the factors, where it is more than a copy.
    fn make(
        &self,
        task: &Task<'_>,
        up: &Uploaded,
        numel: usize,
        how: &ChildDecision,
    ) -> Attempt<Option<(f64, f64)>> {
        self.ask_for_memory()?;
        let kind = computed_kind(task.plan.dtype)?;
        let [a, b] = &up.views;
        let kernel = self.kernel()?;
        let mut child = kernel.block.view(self.places.child, kind, numel)?;
        let line = how.coefficients.path.is_line();
        let factors = (how.coefficients.s0, how.coefficients.s1);
        if how.t == 0.0 {
            kernel.copy(a, &mut child)?;
        } else if how.t == 1.0 {
            kernel.copy(b, &mut child)?;
        } else if line && up.equal.iter().all(|equal| *equal) {
            // On a line, equal elements stay what they are; rounding might change them.
            child.f_copy_(a).or_trouble("copy")?;
        } else {
            kernel.blend(a, b, factors, &mut child)?;
            let equal = up.equal.iter().enumerate().filter(|(_, equal)| line && **equal);
            for (piece, _) in equal {
                let mut piece_of_child = piece_view(&child, piece)?;
                piece_of_child.f_copy_(&piece_view(a, piece)?).or_trouble("copy")?;
            }
            return Ok(Some(factors));
        }
        Ok(None)
    }

    /// Copies the chunk that was made down to where it is written from, in few parts, and looks at it
    /// there: its NaN and Inf, where they are allowed. With the factors, its end is held to the CPU's.
    fn bring_down(
        &self,
        task: &Task<'_>,
        (start, numel): (u64, usize),
        how: &ChildDecision,
        check: Option<(f64, f64)>,
        out: &mut SpanOut<'_>,
    ) -> Attempt<u64> {
        let (kind, item) = (computed_kind(task.plan.dtype)?, item_bytes(task));
        let child = self.kernel()?.block.view(self.places.child, kind, numel)?;
        let wrong = self.device.faults.as_ref().is_some_and(|faults| faults.download());
        let pieces = numel.div_ceil(PIECE);
        let most = (self.children.queue.room() / (PIECE * item)).max(1);
        let step = pieces.div_ceil(pieces.div_ceil(most)) * PIECE;
        let mut nonfinite = 0;
        for (first, length) in parts(&(0..numel as u64), step) {
            let place = usize::try_from(first).unwrap_or(numel);
            let is_last = place + length == numel;
            let mut down = out.view(kind, length)?;
            down.f_copy_(&part(&child, place, length)?).or_trouble("copy from the device")?;
            if wrong && is_last {
                out.bytes_mut(length * item)?[length * item - 1] ^= 0x5a;
            }
            if let Some(factors) = check.filter(|_| is_last) {
                self.check_last_blend(task, numel, factors, &down)?;
            }
            for piece in 0..if how.check { length.div_ceil(PIECE) } else { 0 } {
                let (count, at) = count_nonfinite(&piece_view(&down, piece)?)?;
                if count > 0 && !self.options.allow_nonfinite {
                    let at = start + first + (piece * PIECE) as u64 + at.unwrap_or(0);
                    return Err(overflow_error(task, count, at).into());
                }
                nonfinite += count;
            }
            out.advance(length * item)?;
        }
        Ok(nonfinite)
    }

    /// Takes the block, where it isn't taken yet.
    fn take_block(&mut self) -> Attempt<()> {
        if self.block.is_none() {
            let faults = self.device.faults.as_ref();
            self.block = Some(Block::new(self.block_bytes, self.device.device, faults)?);
        }
        Ok(())
    }

    fn kernel(&self) -> Attempt<Kernel<'_>> {
        let block = self.block.as_ref().ok_or_else(|| torch_error("no block was taken"))?;
        Ok(Kernel { block, places: self.places })
    }

    /// Sums of a chunk's pieces.
    fn sums(&mut self, up: &Uploaded) -> Attempt<Vec<Sums>> {
        self.ask_for_memory()?;
        let block = self.block.as_ref().ok_or_else(|| torch_error("no block was taken"))?;
        let kernel = Kernel { block, places: self.places };
        kernel.sums(&up.views[0], &up.views[1], &mut self.host.sums)
    }

    /// CUDA takes memory of its own when a kernel first runs; a stand-in can fail there too.
    fn ask_for_memory(&self) -> Attempt<()> {
        match &self.device.faults {
            Some(faults) => faults.allocate().or_trouble("compute"),
            None => Ok(()),
        }
    }

    /// Where both sides of a tensor are kept, if they fit.
    fn kept_at(&self, task: &Task<'_>, numel: usize) -> Attempt<Option<[usize; 2]>> {
        let items = sources(task)?.map(|source| source.item_bytes());
        let room = self.block.as_ref().map_or(0, Block::len).saturating_sub(self.places.kept);
        let places = kept_places(numel, items).filter(|(_, length)| *length <= room);
        Ok(places.map(|(places, _)| places.map(|place| self.places.kept + place)))
    }

    /// Copies a chunk up: to its place among the kept, or to the place for one chunk.
    fn upload(&self, task: &Task<'_>, start: u64, chunk: Chunk, keep: bool) -> Attempt<Uploaded> {
        let numel = chunk.views[0].numel();
        let views = self.views(task, start, numel, keep)?;
        for (view, host) in views.iter().zip(&chunk.views) {
            if let Some(faults) = &self.device.faults {
                faults.upload().or_trouble("copy to the device")?;
            }
            view.shallow_clone().f_copy_(host).or_trouble("copy to the device")?;
        }
        Ok(Uploaded { views, equal: chunk.equal })
    }

    /// A chunk that is kept.
    fn uploaded(
        &self,
        task: &Task<'_>,
        start: u64,
        numel: usize,
        equal: &[bool],
    ) -> Attempt<Uploaded> {
        let first = usize::try_from(start).unwrap_or(usize::MAX) / PIECE;
        let equal = equal.iter().skip(first).take(numel.div_ceil(PIECE)).copied().collect();
        Ok(Uploaded { views: self.views(task, start, numel, true)?, equal })
    }

    fn views(&self, task: &Task<'_>, start: u64, numel: usize, keep: bool) -> Attempt<[Tensor; 2]> {
        let block = self.kernel()?.block;
        let all = usize::try_from(task.plan.numel).unwrap_or(usize::MAX);
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let (places, skip) = if keep {
            let places = self.kept_at(task, all)?;
            (places.ok_or_else(|| torch_error("a kept tensor has no place"))?, start)
        } else {
            (self.places.raw, 0)
        };
        let [a, b] = sources(task)?;
        let view = |source: &Source<'_>, place: usize| {
            let place = place + skip.saturating_mul(source.item_bytes());
            block.view(place, computed_kind(source.tensor.dtype)?, numel)
        };
        Ok([view(a, places[0])?, view(b, places[1])?])
    }

    /// Compares the sums of the last piece with the CPU's. Its elements are still on the host.
    fn check_last_sums(&mut self, task: &Task<'_>, span: &Range<u64>, scan: &Scan) -> Attempt<()> {
        let Some(((_, numel), found)) = self.chunks(span).last().zip(scan.sums.last()) else {
            return Ok(());
        };
        let start = (numel.div_ceil(PIECE) - 1) * PIECE;
        let [a, b] = self.host.sides(task, start, numel - start)?;
        self.checker.check_sums(&a, &b, found).map_err(|trouble| named(trouble, task))
    }

    /// Compares the end of the last chunk of a child with the CPU's. The parents' elements are still
    /// on the host, also where pass two took them from the block.
    fn check_last_blend(
        &self,
        task: &Task<'_>,
        numel: usize,
        factors: (f64, f64),
        child: &Tensor,
    ) -> Attempt<()> {
        let length = child.numel().min(CHECKED);
        let [a, b] = self.host.sides(task, numel - length, length)?;
        let found = part(child, child.numel() - length, length)?;
        let checked = self.checker.check_blend(&a, &b, factors, &found);
        checked.map_err(|trouble| named(trouble, task))
    }
}

/// A piece of a flat tensor.
fn piece_view(tensor: &Tensor, piece: usize) -> Attempt<Tensor> {
    let start = piece * PIECE;
    Ok(part(tensor, start, (tensor.numel() - start).min(PIECE))?)
}

fn item_bytes(task: &Task<'_>) -> usize {
    usize::try_from(task.plan.dtype.size_bytes()).unwrap_or(0)
}

fn named(trouble: Trouble, task: &Task<'_>) -> Trouble {
    match trouble {
        Trouble::Error(error) => Trouble::Error(error.tensor(&task.plan.name)),
        trouble => trouble,
    }
}

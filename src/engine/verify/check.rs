//! Checks whether a checkpoint is whole and finite: reads every byte once, takes its CRC and, in
//! the same pass, looks for NaN and Inf.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::checkpoint::{Checkpoint, Finding, Opening, Rows, Survey, TensorEntry};
use crate::engine::cpu::kernel::Kernel;
use crate::engine::read::source::{Source, swap};
use crate::engine::reporter::Reporter;
use crate::engine::torch::buffer::Buffer;
use crate::engine::torch::calls::{torch_error, use_one_thread};
use crate::engine::torch::ops::{PIECE, WIDEST, count_nonfinite};
use crate::engine::verify::gauge::{SPARSE_BYTES, Tally, gauge};
use crate::engine::verify::region::{Region, SPAN_BYTES};
use crate::engine::verify::suspects::suspects;
use crate::error::{Error, Kind, Result};
use crate::format::{Encoding, FormatError, ReadAt, inflate_pieces};
use crate::merge::{KnownBuffer, refusals, vocab_rows};
use crate::tensor::{Crc, DType, RunningCrc};

/// Bytes read at a time where no tensor shows them.
const CHUNK: usize = 256 << 10;

/// How a check is run. Of this only the opening changes what is found.
pub struct VerifySettings<'s> {
    /// Worker threads, at least 1.
    pub threads: usize,
    /// How the model is opened: what is an error beyond what is wrong, and what may stand beside it.
    pub opening: Opening,
    /// Asked between spans: an error to stop with (interrupts).
    pub interrupted: &'s (dyn Fn() -> Option<Error> + Sync),
}

/// What a check found, in a checkpoint that is whole or not.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Path as the user gave it.
    pub path: PathBuf,
    /// Everything that was found: headers, index and side files first, then data in file order.
    pub findings: Vec<Finding>,
    /// Tensors in all files that could be opened.
    pub tensors: usize,
    /// Bytes of their storages.
    pub bytes: u64,
}

impl Verified {
    /// Whether there is no error among the findings.
    pub fn is_whole(&self) -> bool {
        self.kind().is_none()
    }

    /// The kind of error to end with where it is not whole: bad data before all else, then the first.
    pub fn kind(&self) -> Option<Kind> {
        let kinds = || self.findings.iter().filter_map(Finding::kind);
        kinds().find(|kind| *kind == Kind::Data).or_else(|| kinds().next())
    }
}

/// Looks at a model directory or file, to its last byte.
///
/// Whatever is wrong with the model is a [`Finding`], after which the check goes on.
///
/// # Errors
/// What [`VerifySettings::interrupted`] says, and failures of torch.
pub fn verify(
    path: &Path,
    settings: &VerifySettings<'_>,
    reporter: &dyn Reporter,
) -> Result<Verified> {
    let mut survey = Survey::of(path, &settings.opening);
    let rows = vocab_rows(&survey.checkpoint.inventory);
    let rows: Vec<Rows> = rows.map(|(name, rows)| Rows { tensor: name.to_owned(), rows }).collect();
    survey.check_vocabulary(&rows);
    let Survey { checkpoint, mut findings, .. } = survey;
    findings.extend(refusals(&checkpoint).map(|error| Finding::refused(&error)));
    findings.extend(unexamined(&checkpoint));
    findings.extend(check_data(&checkpoint, settings, reporter)?);
    let changed = checkpoint.files.iter().filter_map(|file| file.check_unchanged().err());
    findings.extend(changed.map(|error| Finding::refused(&error)));
    let storages = checkpoint.inventory.storages.iter();
    Ok(Verified {
        path: path.to_path_buf(),
        findings,
        tensors: checkpoint.inventory.tensors.len(),
        bytes: storages.map(|storage| storage.size_bytes).fold(0, u64::saturating_add),
    })
}

/// Tensors that may hold NaN but that torch can't sum, and so are not examined.
fn unexamined(checkpoint: &Checkpoint) -> Vec<Finding> {
    let mut counts: BTreeMap<DType, usize> = BTreeMap::new();
    for tensor in &checkpoint.inventory.tensors {
        let has_nan = tensor.dtype.is_complex() || tensor.dtype == DType::Float8E8M0Fnu;
        if has_nan {
            *counts.entry(tensor.dtype).or_default() += 1;
        }
    }
    counts.into_iter().map(|(dtype, tensors)| Finding::Unexamined { dtype, tensors }).collect()
}

/// Reads every byte. Findings in the order of files and bytes.
fn check_data(
    checkpoint: &Checkpoint,
    settings: &VerifySettings<'_>,
    reporter: &dyn Reporter,
) -> Result<Vec<Finding>> {
    use_one_thread();
    let mut findings = Vec::new();
    let mut regions = Vec::new();
    for region in Region::all(checkpoint) {
        match region {
            Ok(region) => regions.push(region),
            Err(error) => findings.push(Finding::refused(&error)),
        }
    }
    findings.extend(unchecked(checkpoint, &regions, settings.opening.strictness.require_checksums));
    let sizes = regions.iter().map(|region| region.size_bytes);
    reporter.start(sizes.fold(0, u64::saturating_add));
    let numbered = regions.iter().enumerate();
    let units: Vec<(usize, usize)> = numbered
        .flat_map(|(index, region)| (0..region.spans()).map(move |span| (index, span)))
        .collect();
    let check = Check {
        checkpoint,
        regions,
        next: AtomicUsize::new(0),
        units,
        settings,
        reporter,
        found: Mutex::new(Vec::new()),
        stopped: Mutex::new(None),
    };
    std::thread::scope(|scope| {
        for _ in 0..settings.threads.max(1).min(check.units.len()) {
            scope.spawn(|| check.work());
        }
    });
    reporter.finish();
    if let Some(error) = check.stopped.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(error);
    }
    let mut found =
        std::mem::take(&mut *check.found.lock().unwrap_or_else(PoisonError::into_inner));
    found.sort_by_key(|entry| entry.0);
    findings.extend(found.into_iter().map(|entry| entry.1));
    findings.extend(suspects(checkpoint, &check.regions));
    Ok(findings)
}

/// Per file, how many records have no CRC; legacy files were noted when they were opened.
fn unchecked(checkpoint: &Checkpoint, regions: &[Region<'_>], refused: bool) -> Vec<Finding> {
    let files = checkpoint.files.iter().zip(&checkpoint.containers);
    let archives = files.filter(|(_, container)| container.has_checksums());
    archives
        .filter_map(|(file, _)| {
            let own = || regions.iter().filter(|region| std::ptr::eq(region.file, file));
            let records = own().filter(|region| region.crc32.is_none()).count();
            (records > 0).then(|| Finding::Unchecked {
                file: file_name(file.path()),
                records,
                of: own().count(),
                refused,
            })
        })
        .collect()
}

struct Check<'a> {
    checkpoint: &'a Checkpoint,
    regions: Vec<Region<'a>>,
    /// (region, span), taken in order.
    units: Vec<(usize, usize)>,
    next: AtomicUsize,
    settings: &'a VerifySettings<'a>,
    reporter: &'a dyn Reporter,
    /// Findings and their regions.
    found: Mutex<Vec<(usize, Finding)>>,
    stopped: Mutex<Option<Error>>,
}

impl Check<'_> {
    /// A worker's life: a panic in it is an error of the check, not the end of the process.
    fn work(&self) {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.loop_units()));
        let error = match result {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => Error::new(Kind::Internal, "a worker broke down")
                .with_hint("please report this with the log of RUST_LOG=debug"),
        };
        self.next.store(self.units.len(), Ordering::Relaxed);
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        stopped.get_or_insert(error);
    }

    fn loop_units(&self) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let mut examiner = Examiner {
            kernel: Kernel::new()?,
            buffer: Buffer::new(PIECE * WIDEST)?,
            settings: self.settings,
        };
        while let Some((index, span)) =
            self.units.get(self.next.fetch_add(1, Ordering::Relaxed)).copied()
        {
            if let Some(error) = (self.settings.interrupted)() {
                return Err(error);
            }
            let region = &self.regions[index];
            let read = match examiner.read(region, span) {
                Err(error) if is_ours(&error) => return Err(error),
                read => read,
            };
            self.reporter.advance(read.as_ref().map_or(0, |crc| crc.bytes));
            if region.finish_span(span, read) {
                let found = self.conclude(region, &mut examiner)?;
                let mut all = self.found.lock().unwrap_or_else(PoisonError::into_inner);
                all.extend(found.into_iter().map(|finding| (index, finding)));
            }
        }
        Ok(())
    }

    /// What is wrong with a region, all of whose spans were read.
    fn conclude(&self, region: &Region<'_>, examiner: &mut Examiner<'_>) -> Result<Vec<Finding>> {
        if let Some(error) = region.take_failure() {
            return Ok(vec![Finding::refused(&error)]);
        }
        let mut findings = Vec::new();
        let found = region.found_crc();
        let damaged = region.crc32.is_some_and(|expected| expected != found);
        let tensors = &self.checkpoint.inventory.tensors;
        if let Some(expected) = region.crc32.filter(|_| damaged) {
            let names = region.tensors.iter().filter_map(|position| tensors.get(*position));
            findings.push(Finding::Damaged {
                file: file_name(region.file.path()),
                record: region.name.clone(),
                tensors: names.map(|tensor| tensor.name.clone()).collect(),
                expected: format!("{expected:08x}"),
                found: format!("{found:08x}"),
            });
        }
        for position in region.tensors.iter().copied() {
            let source = Source::new(self.checkpoint, position)?;
            if may_be_nonfinite(source.tensor) {
                continue;
            }
            // A tensor that must be loaded whole would be refused for the CRC reported above.
            if !region.is_suspicious(source.tensor.dtype) || (damaged && source.needs_whole()) {
                continue;
            }
            match examiner.count(&source) {
                Ok((0, _)) => {}
                Ok((count, first)) => findings.push(Finding::NonFinite {
                    file: file_name(region.file.path()),
                    tensor: source.tensor.name.clone(),
                    count,
                    first: first.unwrap_or(0),
                    elements: source.numel,
                }),
                Err(error) if is_ours(&error) => return Err(error),
                Err(error) => findings.push(Finding::refused(&error)),
            }
        }
        Ok(findings)
    }
}

/// Whether this tensor may hold NaN and Inf, as masks do.
fn may_be_nonfinite(tensor: &TensorEntry) -> bool {
    let buffer = KnownBuffer::of(&tensor.name, tensor.dtype, &tensor.layout.shape);
    buffer.is_some_and(KnownBuffer::may_be_nonfinite)
}

/// Whether an error is the tool's or the machine's, which ends the check.
fn is_ours(error: &Error) -> bool {
    matches!(error.kind(), Kind::Internal | Kind::Resource | Kind::Interrupted | Kind::Terminated)
}

/// Kernel and buffer of one thread.
struct Examiner<'s> {
    kernel: Kernel,
    buffer: Buffer,
    settings: &'s VerifySettings<'s>,
}

impl Examiner<'_> {
    fn go_on(&self) -> Result<()> {
        (self.settings.interrupted)().map_or(Ok(()), Err)
    }

    /// Reads one span, takes its CRC and looks for elements that are not finite.
    fn read(&mut self, region: &Region<'_>, span: usize) -> Result<Crc> {
        let mut digest = RunningCrc::new();
        let narrowest = region.lenses.iter().map(|lens| lens.dtype.size_bytes()).min();
        let step =
            narrowest.and_then(|bytes| usize::try_from(bytes).ok()).map_or(CHUNK, |b| b * PIECE);
        if let Encoding::Deflated { compressed_bytes } = region.encoding {
            let mut failure = None;
            let mut look = |part: &[u8]| {
                self.go_on()?;
                self.buffer.bytes_mut()[..part.len()].copy_from_slice(part);
                self.look(region, span, part.len())
            };
            let mut take = |piece: &[u8]| {
                digest.update(piece);
                failure = piece.chunks(step).try_for_each(&mut look).err();
                if failure.is_some() { Err(std::io::ErrorKind::Other.into()) } else { Ok(()) }
            };
            let (offset, size) = (region.file_offset, region.size_bytes);
            let read = inflate_pieces(region.file, offset, compressed_bytes, size, &mut take);
            if let Err(error) = read {
                return Err(failure.unwrap_or_else(|| refused(region, error)));
            }
        } else {
            let start = SPAN_BYTES.saturating_mul(span as u64);
            let end = start.saturating_add(SPAN_BYTES).min(region.size_bytes);
            for at in (start..end).step_by(step) {
                let length = usize::try_from(end - at).unwrap_or(step).min(step);
                let bytes = &mut self.buffer.bytes_mut()[..length];
                region
                    .file
                    .read_exact_at(region.file_offset.saturating_add(at), bytes)
                    .map_err(|error| region.file.read_error("cannot read checkpoint", error))?;
                digest.update(bytes);
                self.look(region, span, length)?;
            }
        }
        Ok(digest.crc())
    }

    /// Looks at the first bytes of the buffer, part of a span, through each lens of the region.
    fn look(&mut self, region: &Region<'_>, span: usize, length: usize) -> Result<()> {
        for lens in &region.lenses {
            let item = lens.kind.elt_size_in_bytes();
            if length < item || lens.suspicious.load(Ordering::Relaxed) {
                continue;
            }
            let width = if region.big_endian { lens.dtype.swap_bytes() } else { 1 };
            swap(&mut self.buffer.bytes_mut()[..length], width);
            let sparse = region.size_bytes >= SPARSE_BYTES;
            let tally = match gauge(&self.buffer.bytes_mut()[..length], lens.dtype, sparse) {
                Some(tally) => tally,
                None => {
                    let view = self.buffer.view(0, lens.kind, length / item)?;
                    let squares = self.kernel.square(&view)?;
                    // No element is larger than that, and all are zero where it is.
                    Tally { largest: squares.sqrt(), squares, squared: (length / item) as u64 }
                }
            };
            lens.note(span, tally);
            swap(&mut self.buffer.bytes_mut()[..length], width);
        }
        Ok(())
    }

    /// Counts NaN and Inf of a tensor, and finds the first.
    fn count(&mut self, source: &Source<'_>) -> Result<(u64, Option<u64>)> {
        let kind = source.kind()?;
        let (mut count, mut first) = (0, None);
        for start in (0..source.numel).step_by(PIECE) {
            self.go_on()?;
            let numel = usize::try_from(source.numel - start).unwrap_or(PIECE).min(PIECE);
            let bytes = self.buffer.bytes_mut().get_mut(..numel * source.item_bytes());
            source.read(start, bytes.ok_or_else(|| torch_error("a piece is too large"))?)?;
            let (found, position) = count_nonfinite(&self.buffer.view(0, kind, numel)?)?;
            count += found;
            first = first.or(position.map(|position| start + position));
        }
        Ok((count, first))
    }
}

fn refused(region: &Region<'_>, error: FormatError) -> Error {
    let what = format!("record `{}`: {}", region.name, error.what);
    region.file.format_error(FormatError { what, ..error })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

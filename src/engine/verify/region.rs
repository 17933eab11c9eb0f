//! `Region`: a run of bytes to be checked, one record of an archive or one storage of a legacy
//! file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tch::Kind as TorchKind;

use crate::checkpoint::{Checkpoint, FileSource};
use crate::engine::torch::calls::torch_kind;
use crate::engine::verify::gauge::Tally;
use crate::error::{Error, Result};
use crate::format::{ByteOrder, Encoding, archive_records};
use crate::tensor::{Crc, DType};

/// Bytes of a span, the unit of work that is handed to a worker; a multiple of every element.
pub(crate) const SPAN_BYTES: u64 = 8 << 20;

/// Bytes that are read once, under one CRC, and looked at as the dtypes that tensors show of them.
pub(crate) struct Region<'a> {
    pub(crate) file: &'a FileSource,
    /// Name in the archive, or the storage's key.
    pub(crate) name: String,
    pub(crate) file_offset: u64,
    /// Bytes once decoded.
    pub(crate) size_bytes: u64,
    pub(crate) encoding: Encoding,
    pub(crate) big_endian: bool,
    pub(crate) crc32: Option<u32>,
    /// The floating dtypes of the tensors in it.
    pub(crate) lenses: Vec<Lens>,
    /// Positions of the tensors in it in the inventory, each view once.
    pub(crate) tensors: Vec<usize>,
    progress: Mutex<Vec<Option<Crc>>>,
    left: AtomicUsize,
    failed: Mutex<Option<Error>>,
}

/// One dtype that a region's bytes are looked at as.
pub(crate) struct Lens {
    pub(crate) dtype: DType,
    pub(crate) kind: TorchKind,
    /// Whether an element, or a sum of squares, was not finite.
    pub(crate) suspicious: AtomicBool,
    /// How large the elements of each span are.
    tallies: Mutex<BTreeMap<usize, Tally>>,
}

impl Lens {
    fn new(dtype: DType, kind: TorchKind) -> Lens {
        Lens { dtype, kind, suspicious: AtomicBool::new(false), tallies: Mutex::default() }
    }

    /// Notes how large some elements of a span are; those of one span come in order.
    pub(crate) fn note(&self, span: usize, tally: Tally) {
        if !tally.is_finite() {
            self.suspicious.store(true, Ordering::Relaxed);
        }
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = tallies.entry(span).or_default();
        *sum = sum.and(tally);
    }

    /// How large all elements are; `None` where not all of `spans` were seen, or not all are finite.
    pub(crate) fn tally(&self, spans: usize) -> Option<Tally> {
        let tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = tallies.len() == spans && !self.suspicious.load(Ordering::Relaxed);
        whole.then(|| tallies.values().fold(Tally::default(), |sum, tally| sum.and(*tally)))
    }
}

impl<'a> Region<'a> {
    /// Every region of a checkpoint, file by file; an error for an archive whose directory could be
    /// read before and can't be read now.
    pub(crate) fn all(checkpoint: &'a Checkpoint) -> Vec<Result<Region<'a>>> {
        let mut by_place: HashMap<(usize, u64), usize> = HashMap::new();
        for (position, storage) in checkpoint.inventory.storages.iter().enumerate() {
            by_place.insert((storage.file, storage.file_offset), position);
        }
        let mut tensors_of = vec![Vec::new(); checkpoint.inventory.storages.len()];
        let mut seen = HashSet::new();
        for (position, tensor) in checkpoint.inventory.tensors.iter().enumerate() {
            if seen.insert((tensor.storage, tensor.dtype, &tensor.layout)) {
                tensors_of[tensor.storage].push(position);
            }
        }
        let mut regions = Vec::new();
        for (index, (file, container)) in
            checkpoint.files.iter().zip(&checkpoint.containers).enumerate()
        {
            let storage_at = |offset: u64| by_place.get(&(index, offset)).copied();
            if !container.has_checksums() {
                let storages = checkpoint.inventory.storages.iter();
                let own = storages.filter(|storage| storage.file == index);
                regions.extend(own.map(|storage| {
                    let mut region = Region::new(file, storage.key.clone(), storage.record_bytes);
                    region.file_offset = storage.file_offset;
                    region.show(checkpoint, storage_at(storage.file_offset), &tensors_of);
                    Ok(region.ready())
                }));
                continue;
            }
            match archive_records(file) {
                Ok(records) => regions.extend(records.into_iter().map(|record| {
                    let mut region = Region::new(file, record.name, record.size_bytes);
                    region.file_offset = record.file_offset;
                    region.encoding = record.encoding;
                    region.crc32 = record.crc32;
                    region.show(checkpoint, storage_at(record.file_offset), &tensors_of);
                    Ok(region.ready())
                })),
                Err(error) => regions.push(Err(Error::from_format(file.path(), error))),
            }
        }
        regions
    }

    fn new(file: &'a FileSource, name: String, size_bytes: u64) -> Region<'a> {
        Region {
            file,
            name,
            file_offset: 0,
            size_bytes,
            encoding: Encoding::Stored,
            big_endian: false,
            crc32: None,
            lenses: Vec::new(),
            tensors: Vec::new(),
            progress: Mutex::new(Vec::new()),
            left: AtomicUsize::new(0),
            failed: Mutex::new(None),
        }
    }

    /// Notes the tensors that show a storage.
    fn show(&mut self, checkpoint: &Checkpoint, storage: Option<usize>, tensors: &[Vec<usize>]) {
        let Some(storage) = storage else { return };
        let inventory = &checkpoint.inventory;
        self.big_endian =
            inventory.storages.get(storage).is_some_and(|s| s.byte_order == ByteOrder::Big);
        self.tensors = tensors.get(storage).cloned().unwrap_or_default();
        for tensor in self.tensors.iter().filter_map(|position| inventory.tensors.get(*position)) {
            let dtype = tensor.dtype;
            let known = self.lenses.iter().any(|lens| lens.dtype == dtype);
            if let Some(kind) = torch_kind(dtype).filter(|_| dtype.is_floating() && !known) {
                self.lenses.push(Lens::new(dtype, kind));
            }
        }
    }

    fn ready(self) -> Region<'a> {
        let spans = self.spans();
        *self.lock() = vec![None; spans];
        self.left.store(spans, Ordering::Relaxed);
        self
    }

    /// How many spans there are: one at least, and one where bytes must be inflated in order.
    pub(crate) fn spans(&self) -> usize {
        match self.encoding {
            Encoding::Deflated { .. } => 1,
            Encoding::Stored => {
                usize::try_from(self.size_bytes.div_ceil(SPAN_BYTES)).unwrap_or(usize::MAX).max(1)
            }
        }
    }

    /// Notes what a span found, or why it could not be read. True for the last span.
    pub(crate) fn finish_span(&self, span: usize, result: Result<Crc>) -> bool {
        match result {
            Ok(crc) => {
                if let Some(slot) = self.lock().get_mut(span) {
                    *slot = Some(crc);
                }
            }
            Err(error) => {
                let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert(error);
            }
        }
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Why the region could not be read.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The CRC-32 over all spans.
    pub(crate) fn found_crc(&self) -> u32 {
        Crc::joined(self.lock().iter().flatten().copied()).crc32
    }

    /// Whether elements of this dtype may be NaN or Inf.
    pub(crate) fn is_suspicious(&self, dtype: DType) -> bool {
        let mut lenses = self.lenses.iter();
        lenses.any(|lens| lens.dtype == dtype && lens.suspicious.load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Crc>>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

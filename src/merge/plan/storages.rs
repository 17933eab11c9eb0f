//! Plans the storages of the child: how each is made. Refuses tensors that can't be merged.

use crate::checkpoint::{Checkpoint, Side, TensorEntry};
use crate::error::{Error, Kind, Result};
use crate::merge::names::buffers::{KnownBuffer, is_parameter};
use crate::merge::options::MergeOptions;
use crate::merge::pair::Pair;
use crate::merge::plan::planned::{Action, PlannedStorage, PlannedTensor};
use crate::merge::ties::share::Share;
use crate::merge::warning::Warning;
use crate::tensor::{DType, counted};

/// The distinct storages of the child, and which of them each name shows.
pub(crate) fn storages(
    primary: &Checkpoint,
    secondary: &Checkpoint,
    pairs: &[Pair],
    share: &Share,
    options: &MergeOptions,
    warnings: &mut Vec<Warning>,
) -> Result<(Vec<PlannedTensor>, Vec<PlannedStorage>)> {
    let mut tensors: Vec<PlannedTensor> = Vec::with_capacity(pairs.len());
    let mut storages: Vec<PlannedStorage> = Vec::with_capacity(pairs.len());
    let mut dtypes: Option<(usize, String, DType, DType)> = None;
    for (place, pair) in pairs.iter().enumerate() {
        let name = pair.name.clone();
        if share.first[place] != place {
            tensors.push(PlannedTensor { name, storage: tensors[share.first[place]].storage });
            continue;
        }
        let pair = &pairs[share.maker[place]];
        let (side, entry) = entry_of(pair, primary, secondary)?;
        if let Some(b) = pair.secondary.map(|position| &secondary.inventory.tensors[position])
            && side == Side::Primary
            && b.dtype != entry.dtype
        {
            let first = dtypes.get_or_insert((0, pair.name.clone(), entry.dtype, b.dtype));
            first.0 += 1;
        }
        tensors.push(PlannedTensor { name: name.clone(), storage: storages.len() });
        let planned = planned(pair, side, entry, primary, secondary, options)?;
        storages.push(PlannedStorage { name, ..planned });
    }
    if let Some((count, name, primary, secondary)) = dtypes {
        warnings.push(Warning::DTypes { count, name, primary, secondary });
    }
    Ok((tensors, storages))
}

fn entry_of<'a>(
    pair: &Pair,
    primary: &'a Checkpoint,
    secondary: &'a Checkpoint,
) -> Result<(Side, &'a TensorEntry)> {
    let of = |checkpoint: &'a Checkpoint, position: Option<usize>| {
        checkpoint.inventory.tensors.get(position?)
    };
    if let Some(entry) = of(primary, pair.primary) {
        return Ok((Side::Primary, entry));
    }
    of(secondary, pair.secondary).map(|entry| (Side::Secondary, entry)).ok_or_else(|| {
        Error::new(Kind::Internal, "a pair without tensors was planned").tensor(&pair.name)
    })
}

fn planned(
    pair: &Pair,
    side: Side,
    entry: &TensorEntry,
    primary: &Checkpoint,
    secondary: &Checkpoint,
    options: &MergeOptions,
) -> Result<PlannedStorage> {
    for (parent, position) in [(primary, pair.primary), (secondary, pair.secondary)] {
        if let Some(tensor) = position.and_then(|position| parent.inventory.tensors.get(position)) {
            check_mergeable(parent, tensor)?;
        }
    }
    let floating = entry.dtype.is_floating();
    let copied = pair.buffer.is_some_and(KnownBuffer::is_copied);
    let action = match (pair.primary, pair.secondary) {
        (Some(_), _) if copied => Action::CopyPrimary,
        (Some(_), Some(_)) if floating => Action::merging(options.method),
        (Some(_), _) => Action::CopyPrimary,
        (None, _) => Action::CopySecondary,
    };
    let numel = crate::tensor::numel(&pair.shape)
        .filter(|numel| numel.checked_mul(16).is_some_and(|bytes| i64::try_from(bytes).is_ok()))
        .ok_or_else(|| {
            Error::new(Kind::Data, "tensor is too large")
                .file(&primary.path)
                .tensor(&pair.name)
                .expected("fewer than 2^59 elements", format!("{:?}", pair.shape))
        })?;
    debug_assert!(side == Side::Primary || pair.primary.is_none());
    Ok(PlannedStorage {
        name: pair.name.clone(),
        dtype: options.dtype.filter(|_| floating).unwrap_or(entry.dtype),
        shape: pair.shape.clone(),
        action,
        primary: pair.primary,
        secondary: pair.secondary,
        extension: pair.extension,
        by_word: pair.by_word.clone(),
        buffer: pair.buffer,
        numel,
        t: Vec::new(),
    })
}

/// Refuses what has no meaning in a merge: complex numbers, packed bits, and expanded views whose
/// elements outnumber the bytes behind them.
fn check_mergeable(parent: &Checkpoint, tensor: &TensorEntry) -> Result<()> {
    let file = parent.files.get(parent.inventory.file_of(tensor)).map(|source| source.path());
    let refuse = |expected: &str, found: String| {
        Error::new(Kind::Data, "a tensor can't be merged")
            .file(file.unwrap_or(&parent.path))
            .tensor(&tensor.name)
            .expected(expected, found)
    };
    if !tensor.dtype.is_floating() && !tensor.dtype.is_integral() {
        return Err(refuse("a real floating, integer or boolean dtype", tensor.dtype.to_string()));
    }
    let storage_bytes =
        parent.inventory.storages.get(tensor.storage).map_or(0, |storage| storage.size_bytes);
    let bytes = tensor.layout.numel().and_then(|n| n.checked_mul(tensor.dtype.size_bytes()));
    match bytes {
        Some(bytes) if bytes <= storage_bytes => Ok(()),
        _ => Err(refuse(
            "a tensor no larger than its storage",
            format!(
                "an expanded view {:?} over {}",
                tensor.layout.shape,
                counted(storage_bytes, "byte")
            ),
        )
        .with_hint("save it with .contiguous()")),
    }
}

/// `model.num_parameters()`: the figure of the primary's index plus the elements of added rows and
/// of tensors from the secondary alone; where there is no figure, the elements of all floating
/// storages but the buffers that are known by name.
pub(crate) fn total_parameters(primary: &Checkpoint, storages: &[PlannedStorage]) -> u64 {
    let counts = |storage: &PlannedStorage| {
        storage.dtype.is_floating() && is_parameter(&storage.name, storage.dtype, &storage.shape)
    };
    if let Some(figure) = primary.total_parameters {
        let added: u64 = storages
            .iter()
            .map(|storage| match (storage.action, storage.extension) {
                (Action::CopySecondary, _) if counts(storage) => storage.numel,
                _ if !counts(storage) => 0,
                _ if storage.by_word.is_some() => storage.by_word.as_ref().map_or(0, |rows| {
                    let width = storage.numel.checked_div(rows.by.rows).unwrap_or(0);
                    (rows.by.rows - rows.by.map(Side::Primary).own()).saturating_mul(width)
                }),
                (_, Some(rows)) if rows.side == Side::Primary => {
                    let width = storage.numel.checked_div(rows.to_rows).unwrap_or(0);
                    (rows.to_rows - rows.from_rows).saturating_mul(width)
                }
                _ => 0,
            })
            .fold(0, u64::saturating_add);
        return figure.saturating_add(added);
    }
    storages
        .iter()
        .filter(|storage| counts(storage))
        .map(|storage| storage.numel)
        .fold(0, u64::saturating_add)
}

//! The plan: what the child will be, decided from headers, before a byte is written.

use std::collections::HashMap;

use serde::Serialize;

use crate::checkpoint::split::{SplitTensor, shard_file_names, split};
use crate::checkpoint::{Checkpoint, Side, TensorEntry};
use crate::error::{Error, Kind, Result};
use crate::merge::merged_buffers::is_merged_buffer;
use crate::merge::options::{MergeOptions, Method};
use crate::merge::pairing::{Extension, Pair, pair};
use crate::merge::parent::check_parent;
use crate::merge::vocab::Vocab;
use crate::merge::warning::Warning;
use crate::tensor::{DType, Layout};

/// A whole merge as a plain value: it can be printed, tested and serialised.
#[derive(Clone, Debug, Serialize)]
pub struct MergePlan {
    /// What was asked for.
    pub options: MergeOptions,
    /// Rows of the vocabularies, where the models have any.
    pub vocab: Option<Vocab>,
    /// The child's tensors, in the order of its state dict.
    pub tensors: Vec<PlannedTensor>,
    /// The work: one per distinct storage of the child, in order of first use.
    pub storages: Vec<PlannedStorage>,
    /// The child's weight files.
    pub shards: Vec<PlannedShard>,
    /// Bytes of all distinct storages: the index's `total_size`.
    pub total_size: u64,
    /// Elements of all parameters: the index's `total_parameters`.
    pub total_parameters: u64,
    /// What the user should know.
    pub warnings: Vec<Warning>,
}

/// One name of the child.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedTensor {
    /// Name in the state dict.
    pub name: String,
    /// Index into [`MergePlan::storages`]; tied names share one.
    pub storage: usize,
}

/// One tensor to be made: contiguous, alone in its storage.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedStorage {
    /// The first name that shows it.
    pub name: String,
    /// dtype in the child.
    pub dtype: DType,
    /// Shape in the child.
    pub shape: Vec<u64>,
    /// How it is made.
    pub action: Action,
    /// Index of the primary's tensor in its inventory.
    pub primary: Option<usize>,
    /// Index of the secondary's tensor in its inventory.
    pub secondary: Option<usize>,
    /// Rows that one side lacks.
    pub extension: Option<Extension>,
    /// Elements.
    pub numel: u64,
}

impl PlannedStorage {
    /// Bytes in the child.
    pub fn size_bytes(&self) -> u64 {
        self.numel * self.dtype.size_bytes()
    }
}

/// How a tensor of the child is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Both parents, along an arc (or a line where the arc is none).
    Slerp,
    /// Both parents, along a line.
    Linear,
    /// Copied from the primary: not floating, or only there.
    CopyPrimary,
    /// Copied from the secondary: only there.
    CopySecondary,
}

/// One weight file of the child.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedShard {
    /// `pytorch_model.bin` or `pytorch_model-0000X-of-0000N.bin`.
    pub file_name: String,
    /// Indices into [`MergePlan::tensors`], in the file's order.
    pub tensors: Vec<usize>,
}

/// Makes the plan, or says everything that is in its way.
///
/// # Errors
/// [`Kind::Data`] where the parents do not fit each other or hold what can't be merged.
pub fn plan(
    primary: &Checkpoint,
    secondary: &Checkpoint,
    options: &MergeOptions,
) -> Result<MergePlan> {
    check_parent(primary)?;
    check_parent(secondary)?;
    let mut warnings = Vec::new();
    notes(primary, secondary, &mut warnings);
    let vocab = Vocab::of(primary, secondary);
    let pairs = pair(primary, secondary, vocab, options, &mut warnings)?;
    if pairs.is_empty() {
        return Err(Error::new(Kind::Data, "there is nothing to merge")
            .file(&primary.path)
            .expected("at least one tensor", "none"));
    }
    let (tensors, storages) = storages(primary, secondary, &pairs, options, &mut warnings)?;
    let members: Vec<SplitTensor> = tensors
        .iter()
        .map(|tensor| SplitTensor {
            storage: tensor.storage,
            storage_bytes: storages[tensor.storage].size_bytes(),
        })
        .collect();
    let split = split(&members, options.max_shard_bytes);
    let shards = shard_file_names(split.shards.len())
        .into_iter()
        .zip(split.shards)
        .map(|(file_name, tensors)| PlannedShard { file_name, tensors })
        .collect();
    if let (Some(vocab), Some(config)) = (vocab, &primary.config)
        && config.facts().vocab_size.is_none()
    {
        warnings.push(Warning::NoVocabSize { rows: vocab.child() });
    }
    if primary.config.as_ref().is_some_and(|config| config.facts().needs_custom_code)
        && !options.copy_code
    {
        warnings.push(Warning::CustomCode);
    }
    Ok(MergePlan {
        options: options.clone(),
        vocab,
        total_size: split.total_bytes,
        total_parameters: total_parameters(primary, &storages),
        tensors,
        storages,
        shards,
        warnings,
    })
}

fn notes(primary: &Checkpoint, secondary: &Checkpoint, warnings: &mut Vec<Warning>) {
    for (parent, checkpoint) in [("primary", primary), ("secondary", secondary)] {
        if checkpoint.config.is_none() {
            warnings.push(Warning::NoConfig { parent });
        }
        for note in &checkpoint.notes {
            warnings.push(Warning::Note(format!("{parent}: {note}")));
        }
    }
    let model_type =
        |checkpoint: &Checkpoint| checkpoint.config.as_ref()?.facts().model_type.clone();
    if let (Some(a), Some(b)) = (model_type(primary), model_type(secondary))
        && a != b
    {
        warnings.push(Warning::ModelTypes { primary: a, secondary: b });
    }
}

/// The distinct storages of the child, and for each name the one that it shows. Names that are one
/// tensor in the primary stay one.
fn storages(
    primary: &Checkpoint,
    secondary: &Checkpoint,
    pairs: &[Pair],
    options: &MergeOptions,
    warnings: &mut Vec<Warning>,
) -> Result<(Vec<PlannedTensor>, Vec<PlannedStorage>)> {
    let mut tensors = Vec::with_capacity(pairs.len());
    let mut storages: Vec<PlannedStorage> = Vec::with_capacity(pairs.len());
    let mut first_of: HashMap<(Side, usize, &Layout, DType), usize> = HashMap::new();
    let mut dtypes: Option<(usize, String, DType, DType)> = None;
    for pair in pairs {
        let (side, entry) = entry_of(pair, primary, secondary)?;
        let b = pair.secondary.map(|position| &secondary.inventory.tensors[position]);
        let key = (side, entry.storage, &entry.layout, entry.dtype);
        let empty = entry.layout.numel() == Some(0);
        if let Some(first) = first_of.get(&key).copied().filter(|_| !empty) {
            warn_of_untied(&storages[first], b, secondary, warnings);
            tensors.push(PlannedTensor { name: pair.name.clone(), storage: first });
            continue;
        }
        if let Some(b) = b
            && side == Side::Primary
            && b.dtype != entry.dtype
        {
            let first = dtypes.get_or_insert((0, pair.name.clone(), entry.dtype, b.dtype));
            first.0 += 1;
        }
        first_of.insert(key, storages.len());
        tensors.push(PlannedTensor { name: pair.name.clone(), storage: storages.len() });
        storages.push(planned(pair, side, entry, primary, secondary, options)?);
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
    let action = match (pair.primary, pair.secondary) {
        (Some(_), Some(_)) if floating && options.method == Method::Slerp => Action::Slerp,
        (Some(_), Some(_)) if floating => Action::Linear,
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
        numel,
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
            format!("an expanded view {:?} over {storage_bytes} bytes", tensor.layout.shape),
        )
        .with_hint("save it with .contiguous()")),
    }
}

fn warn_of_untied(
    first: &PlannedStorage,
    b: Option<&TensorEntry>,
    secondary: &Checkpoint,
    warnings: &mut Vec<Warning>,
) {
    let first_b = first.secondary.and_then(|position| secondary.inventory.tensors.get(position));
    if let (Some(first_b), Some(b)) = (first_b, b)
        && !secondary.inventory.tied(first_b, b)
    {
        warnings.push(Warning::Untied { first: first.name.clone(), other: b.name.clone() });
    }
}

/// `model.num_parameters()`: the figure of the primary's index plus the elements of added rows and
/// of tensors from the secondary alone; where there is no figure, the elements of all floating
/// storages but the buffers that are known by name.
fn total_parameters(primary: &Checkpoint, storages: &[PlannedStorage]) -> u64 {
    let width = |storage: &PlannedStorage| {
        storage.shape.iter().skip(1).fold(1, |width: u64, size| width.saturating_mul(*size))
    };
    if let Some(figure) = primary.total_parameters {
        let added: u64 = storages
            .iter()
            .map(|storage| match (storage.action, storage.extension) {
                (Action::CopySecondary, _) if storage.dtype.is_floating() => storage.numel,
                (_, Some(rows)) if rows.side == Side::Primary => {
                    (rows.to_rows - rows.from_rows).saturating_mul(width(storage))
                }
                _ => 0,
            })
            .fold(0, u64::saturating_add);
        return figure.saturating_add(added);
    }
    storages
        .iter()
        .filter(|storage| {
            let is_buffer =
                is_buffer(&storage.name, &storage.shape) || is_merged_buffer(&storage.name);
            storage.dtype.is_floating() && !is_buffer
        })
        .map(|storage| storage.numel)
        .fold(0, u64::saturating_add)
}

/// Buffers that models keep in their state dict: no parameters, so they don't count.
pub(crate) fn is_buffer(name: &str, shape: &[u64]) -> bool {
    const BUFFERS: [&str; 9] = [
        "inv_freq",
        "masked_bias",
        "position_ids",
        "token_type_ids",
        "running_mean",
        "running_var",
        "num_batches_tracked",
        "cos_cached",
        "sin_cached",
    ];
    let last = name.rsplit('.').next().unwrap_or(name);
    // The causal masks of GPT-2 and GPT-NeoX are called `attn.bias`; a real bias has rank 1.
    BUFFERS.contains(&last) || (last == "bias" && shape.len() == 4)
}

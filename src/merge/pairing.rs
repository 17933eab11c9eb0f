//! Which tensors of the two parents belong together, and every reason why they may not.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::checkpoint::{Checkpoint, Side, TensorEntry};
use crate::error::{Error, Kind, Result};
use crate::merge::child_order::arrange;
use crate::merge::options::{Extend, MergeOptions, Missing};
use crate::merge::vocab::{Vocab, is_vocab_name};
use crate::merge::warning::Warning;
use crate::tensor::escape;

/// Mismatches shown in one error; the count of the others follows.
const SHOWN: usize = 50;

/// The rows by which one side of a tensor is extended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Extension {
    /// The shorter side.
    pub side: Side,
    /// Rows that it has.
    pub from_rows: u64,
    /// Rows that it gets.
    pub to_rows: u64,
}

/// A child's tensor before its dtype and place are decided. Indices are into the inventories.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// Name in the child.
    pub name: String,
    /// The primary's tensor.
    pub primary: Option<usize>,
    /// The secondary's tensor.
    pub secondary: Option<usize>,
    /// Shape in the child.
    pub shape: Vec<u64>,
    /// Set where one side has fewer rows than the child.
    pub extension: Option<Extension>,
}

/// Pairs the tensors of both parents by name, in the child's order.
///
/// # Errors
/// [`Kind::Data`] with every mismatch: shapes, kinds of dtype, depth, missing names where those are
/// refused, vocabularies where `--extend error` was given.
pub(crate) fn pair(
    primary: &Checkpoint,
    secondary: &Checkpoint,
    vocab: Option<Vocab>,
    options: &MergeOptions,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<Pair>> {
    check_depth(primary, secondary)?;
    let theirs: HashMap<&str, usize> = names(secondary);
    let mut pairs = Vec::with_capacity(primary.inventory.tensors.len());
    let mut mismatches = Vec::new();
    let mut only_primary = Vec::new();
    for (position, a) in primary.inventory.tensors.iter().enumerate() {
        let Some(other) = theirs.get(a.name.as_str()).copied() else {
            only_primary.push(a.name.clone());
            pairs.push(alone(a, Side::Primary, position, vocab, options, warnings));
            continue;
        };
        let b = &secondary.inventory.tensors[other];
        match fit(a, b, vocab) {
            Ok((shape, extension)) => pairs.push(Pair {
                name: a.name.clone(),
                primary: Some(position),
                secondary: Some(other),
                shape,
                extension,
            }),
            Err(mismatch) => mismatches.push(mismatch),
        }
    }
    if !mismatches.is_empty() {
        return Err(shape_error(primary, secondary, &mismatches));
    }
    // The child would be a copy of the primary.
    let shared = pairs.is_empty() || pairs.iter().any(|pair| pair.secondary.is_some());
    if !shared && options.missing == Missing::Primary {
        return Err(nothing_shared(primary, secondary));
    }
    let ours: HashSet<&str> =
        primary.inventory.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    let only_secondary: Vec<(usize, &TensorEntry)> = secondary
        .inventory
        .tensors
        .iter()
        .enumerate()
        .filter(|(_, tensor)| !ours.contains(tensor.name.as_str()))
        .collect();
    if options.missing == Missing::Error && !(only_primary.is_empty() && only_secondary.is_empty())
    {
        return Err(missing_error(primary, secondary, &only_primary, &only_secondary));
    }
    if options.missing == Missing::Union {
        for (position, tensor) in &only_secondary {
            pairs.push(alone(tensor, Side::Secondary, *position, vocab, options, warnings));
        }
    }
    if !only_primary.is_empty() {
        warnings.push(Warning::OnlyPrimary { names: only_primary });
    }
    if !only_secondary.is_empty() {
        warnings.push(Warning::OnlySecondary {
            names: only_secondary.iter().map(|(_, tensor)| tensor.name.clone()).collect(),
            taken: options.missing == Missing::Union,
        });
    }
    if options.extend == Extend::Error {
        check_no_extension(primary, &pairs)?;
    }
    arrange(&mut pairs, primary);
    Ok(pairs)
}

fn names(checkpoint: &Checkpoint) -> HashMap<&str, usize> {
    let tensors = checkpoint.inventory.tensors.iter();
    tensors.enumerate().map(|(position, tensor)| (tensor.name.as_str(), position)).collect()
}

/// The child's shape of a pair, with the extension that it needs; else the mismatch in words.
fn fit(
    a: &TensorEntry,
    b: &TensorEntry,
    vocab: Option<Vocab>,
) -> std::result::Result<(Vec<u64>, Option<Extension>), String> {
    let (shape_a, shape_b) = (&a.layout.shape, &b.layout.shape);
    if a.dtype != b.dtype && !(a.dtype.is_floating() && b.dtype.is_floating()) {
        return Err(format!("{}: {} and {}", escape(&a.name), a.dtype, b.dtype));
    }
    if shape_a == shape_b {
        return Ok((shape_a.clone(), None));
    }
    if let (Some(vocab), [rows_a, rest_a @ ..], [rows_b, rest_b @ ..]) =
        (vocab, shape_a.as_slice(), shape_b.as_slice())
        && vocab.differs()
        && (*rows_a, *rows_b) == (vocab.primary, vocab.secondary)
        && rest_a == rest_b
        && a.dtype.is_floating()
    {
        let (side, shape) =
            if rows_a < rows_b { (Side::Primary, shape_b) } else { (Side::Secondary, shape_a) };
        let extension =
            Extension { side, from_rows: (*rows_a).min(*rows_b), to_rows: (*rows_a).max(*rows_b) };
        return Ok((shape.clone(), Some(extension)));
    }
    Err(format!("{}: {shape_a:?} and {shape_b:?}", escape(&a.name)))
}

/// A tensor that only one parent has. An output head of the shorter parent still gets the child's
/// rows: the child would not load otherwise.
fn alone(
    tensor: &TensorEntry,
    side: Side,
    position: usize,
    vocab: Option<Vocab>,
    options: &MergeOptions,
    warnings: &mut Vec<Warning>,
) -> Pair {
    let mut shape = tensor.layout.shape.clone();
    let mut extension = None;
    if let Some(vocab) = vocab {
        let own_rows = match side {
            Side::Primary => vocab.primary,
            Side::Secondary => vocab.secondary,
        };
        if own_rows < vocab.child()
            && shape.first() == Some(&own_rows)
            && is_vocab_name(&tensor.name)
            && tensor.dtype.is_floating()
        {
            shape[0] = vocab.child();
            extension = Some(Extension { side, from_rows: own_rows, to_rows: vocab.child() });
            if matches!(options.extend, Extend::Bridge | Extend::Inherit) {
                warnings.push(Warning::ExtendAlone { name: tensor.name.clone() });
            }
        }
    }
    let (primary, secondary) = match side {
        Side::Primary => (Some(position), None),
        Side::Secondary => (None, Some(position)),
    };
    Pair { name: tensor.name.clone(), primary, secondary, shape, extension }
}

fn capped(lines: &[String]) -> String {
    let mut text: String = lines.iter().take(SHOWN).map(|line| format!("\n  {line}")).collect();
    if lines.len() > SHOWN {
        text.push_str(&format!("\n  and {} more", lines.len() - SHOWN));
    }
    text
}

fn shape_error(primary: &Checkpoint, secondary: &Checkpoint, mismatches: &[String]) -> Error {
    Error::new(Kind::Data, "the parents are of different sizes, or not the same architecture")
        .file(&secondary.path)
        .expected(
            format!("the shapes and kinds of `{}`", primary.path.display()),
            format!(
                "{} tensors that differ (primary and secondary):{}",
                mismatches.len(),
                capped(mismatches)
            ),
        )
        .with_hint(
            "merge only checkpoints of one architecture and size; nothing is ever cut to fit",
        )
}

fn nothing_shared(primary: &Checkpoint, secondary: &Checkpoint) -> Error {
    let first = |checkpoint: &Checkpoint| {
        let tensor = checkpoint.inventory.tensors.first();
        tensor.map_or("no tensor".to_owned(), |tensor| format!("`{}`", escape(&tensor.name)))
    };
    Error::new(Kind::Data, "the parents have no tensor in common")
        .file(&secondary.path)
        .expected(
            format!("the names of `{}`: {} and others", primary.path.display(), first(primary)),
            format!("{} and others", first(secondary)),
        )
        .with_hint(
            "merge only checkpoints of one architecture; `llm-slerp-merge find DIR` shows which fit",
        )
}

fn missing_error(
    primary: &Checkpoint,
    secondary: &Checkpoint,
    only_primary: &[String],
    only_secondary: &[(usize, &TensorEntry)],
) -> Error {
    let mut lines: Vec<String> =
        only_primary.iter().map(|name| format!("{}: only in the primary", escape(name))).collect();
    lines.extend(
        only_secondary
            .iter()
            .map(|(_, tensor)| format!("{}: only in the secondary", escape(&tensor.name))),
    );
    Error::new(Kind::Data, "the parents do not have the same tensors")
        .file(&secondary.path)
        .expected(
            format!("the names of `{}`", primary.path.display()),
            format!("{} others:{}", lines.len(), capped(&lines)),
        )
        .with_hint("--missing primary keeps the primary's tensors, --missing union those of both")
}

fn check_no_extension(primary: &Checkpoint, pairs: &[Pair]) -> Result<()> {
    let lines: Vec<String> = pairs
        .iter()
        .filter_map(|pair| {
            let extension = pair.extension?;
            Some(format!(
                "{}: {} rows and {} rows",
                escape(&pair.name),
                extension.from_rows,
                extension.to_rows
            ))
        })
        .collect();
    if lines.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Data, "the vocabularies differ")
        .file(&primary.path)
        .expected(
            "equal vocabularies (--extend error)",
            format!("{} tensors to extend:{}", lines.len(), capped(&lines)),
        )
        .with_hint("leave --extend at its default to extend the shorter vocabulary"))
}

/// Refuses parents with different numbers of layers (or experts): for every place where names
/// count, both must count alike.
fn check_depth(primary: &Checkpoint, secondary: &Checkpoint) -> Result<()> {
    let (ours, theirs) = (counts(primary), counts(secondary));
    let lines: Vec<String> = ours
        .iter()
        .filter_map(|(prefix, a)| {
            let b = theirs.get(prefix)?;
            (a != b).then(|| format!("{}.N: {} and {}", escape(prefix), a.len(), b.len()))
        })
        .collect();
    if lines.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Data, "the parents are of different sizes: their depths differ")
        .file(&secondary.path)
        .expected(
            format!("the layers of `{}`", primary.path.display()),
            format!(
                "{} places that count differently (primary and secondary):{}",
                lines.len(),
                capped(&lines)
            ),
        )
        .with_hint("merge only checkpoints of one architecture and size"))
}

/// Prefix before each number in a name → the numbers found there: `model.layers` → {0, 1, …}.
fn counts(checkpoint: &Checkpoint) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut counts: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for tensor in &checkpoint.inventory.tensors {
        let name = tensor.name.as_str();
        let mut start = 0;
        for part in name.split('.') {
            if start > 0 && !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
                counts.entry(&name[..start - 1]).or_default().insert(part);
            }
            start += part.len() + 1;
        }
    }
    counts
}

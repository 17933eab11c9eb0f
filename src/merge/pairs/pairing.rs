//! Pairs the tensors of the two parents, or refuses them with every mismatch.

use std::collections::HashSet;
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, Side, TensorEntry};
use crate::error::Result;
use crate::merge::names::buffers::KnownBuffer;
use crate::merge::names::matching::Names;
use crate::merge::options::{Extend, MergeOptions, Missing};
use crate::merge::pair::Pair;
use crate::merge::pairs::child_order::arrange;
use crate::merge::pairs::depth::check_depth;
use crate::merge::pairs::mismatch::{
    check_axes_known, check_no_extension, missing_error, nothing_shared, shape_error, taken_twice,
};
use crate::merge::pairs::unpaired;
use crate::merge::ties::parents::Ties;
use crate::merge::ties::share::lost_head_error;
use crate::merge::vocab::axis::{own_axis, shared_axis, word_axis};
use crate::merge::vocab::by_word::{ByWord, WordRows};
use crate::merge::vocab::edges::Edges;
use crate::merge::vocab::extension::Extension;
use crate::merge::vocab::rows::Vocab;
use crate::merge::warning::Warning;
use crate::tensor::escape;

/// The rows of both vocabularies and of the child's.
#[derive(Clone, Copy)]
pub(crate) struct VocabRows<'a> {
    /// How many, where the models have any.
    pub(crate) vocab: Option<Vocab>,
    /// Between which rows the shorter one is extended.
    pub(crate) edges: Edges,
    /// By word, where that was asked for.
    pub(crate) by_word: Option<&'a Arc<ByWord>>,
}

/// Pairs the tensors of both parents by name, in the child's order.
///
/// # Errors
/// [`Kind::Data`](crate::Kind::Data) with every mismatch: shapes, kinds of dtype, depth, missing names
/// where those are refused, vocabularies where `--extend error` was given.
pub(crate) fn pair(
    primary: &Checkpoint,
    secondary: &Checkpoint,
    vocab: VocabRows<'_>,
    ties: &Ties,
    options: &MergeOptions,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<Pair>> {
    let names = Names::of(primary, secondary, options.missing == Some(Missing::Union))?;
    check_depth(primary, secondary, &names)?;
    let mut pairs = Vec::with_capacity(primary.inventory.tensors.len());
    let mut mismatches = Vec::new();
    let mut only_primary = Vec::new();
    let mut buffers = Vec::new();
    let mut ours_paired = vec![true; primary.inventory.tensors.len()];
    let mut paired = vec![false; secondary.inventory.tensors.len()];
    for (position, a) in primary.inventory.tensors.iter().enumerate() {
        let name = &names.child[position];
        let partner = |position: usize| names.partner.get(position).copied().flatten();
        let is_elsewhere = || ties.is_ours_elsewhere(position, |other| partner(other).is_some());
        let Some(other) = partner(position).or_else(|| match is_elsewhere() {
            true => None,
            false => ties.stand_in(a, secondary),
        }) else {
            if is_elsewhere() {
                pairs.push(Pair::another_name(a, name, Side::Primary, position));
                continue;
            }
            ours_paired[position] = false;
            only_primary.push(a.name.clone());
            let place = (Side::Primary, position);
            pairs.push(alone(a, name, place, vocab, options, warnings));
            continue;
        };
        paired[other] = true;
        let b = &secondary.inventory.tensors[other];
        if let Some(buffer) = both_buffers(name, a, b) {
            let comparable = a.dtype == b.dtype && a.layout.shape == b.layout.shape;
            if !comparable {
                buffers.push((name.clone(), a, b));
            }
            pairs.push(Pair {
                name: name.clone(),
                primary: Some(position),
                secondary: Some(other).filter(|_| comparable && !converted(a, options)),
                shape: a.layout.shape.clone(),
                extension: None,
                by_word: None,
                buffer: Some(buffer),
            });
            continue;
        }
        match fit(a, b, vocab) {
            Ok((shape, extension, by_word)) => pairs.push(Pair {
                name: name.clone(),
                primary: Some(position),
                secondary: Some(other),
                shape,
                extension,
                by_word,
                buffer: KnownBuffer::of(name, a.dtype, &a.layout.shape),
            }),
            Err(mismatch) => mismatches.push(mismatch),
        }
    }
    if !mismatches.is_empty() {
        return Err(shape_error(primary, secondary, &mismatches));
    }
    // The child would be a copy of the primary.
    let copied = |pair: &Pair| pair.buffer.is_some_and(KnownBuffer::is_copied);
    let mut weights = pairs.iter().filter(|pair| !copied(pair)).peekable();
    let shared = weights.peek().is_none() || weights.any(|pair| pair.secondary.is_some());
    if !shared && matches!(options.missing, None | Some(Missing::Primary)) {
        return Err(nothing_shared(primary, secondary));
    }
    let unpaired: Vec<(usize, &TensorEntry)> =
        secondary.inventory.tensors.iter().enumerate().filter(|(at, _)| !paired[*at]).collect();
    // Other names of tensors that are paired, and tensors without a partner.
    let has_partner = |position: usize| paired.get(position).copied().unwrap_or(false);
    let (others, only_secondary): (Vec<_>, Vec<_>) = unpaired
        .into_iter()
        .partition(|(position, _)| ties.is_theirs_elsewhere(*position, has_partner));
    if let Some((_, head)) = only_secondary
        .iter()
        .find(|(position, _)| !options.force_config && ties.is_lost(*position, secondary))
    {
        return Err(lost_head_error(primary, secondary, head));
    }
    match options.missing {
        Some(Missing::Error) if !(only_primary.is_empty() && only_secondary.is_empty()) => {
            return Err(missing_error(primary, secondary, &only_primary, &only_secondary));
        }
        Some(Missing::Union) => {
            let mut taken: HashSet<&str> = names.child.iter().map(String::as_str).collect();
            for (position, tensor) in others.iter().chain(&only_secondary) {
                if !taken.insert(&names.theirs[*position]) {
                    return Err(taken_twice(secondary, tensor, &names.theirs[*position]));
                }
            }
            let side = Side::Secondary;
            for (position, tensor) in others {
                pairs.push(Pair::another_name(tensor, &names.theirs[position], side, position));
            }
            for (position, tensor) in &only_secondary {
                let (name, place) = (&names.theirs[*position], (side, *position));
                pairs.push(alone(tensor, name, place, vocab, options, warnings));
            }
        }
        Some(Missing::Primary | Missing::Error) => {}
        None => {
            let alone: HashSet<usize> = only_secondary.iter().map(|(at, _)| *at).collect();
            let theirs_paired = |position: usize| !alone.contains(&position);
            unpaired::check(primary, secondary, &names, |at| ours_paired[at], theirs_paired)?;
        }
    }
    warnings.extend(names.matched.map(Warning::Matched));
    if let Some((name, a, b)) = buffers.first() {
        warnings.push(Warning::Buffers {
            count: buffers.len(),
            name: name.clone(),
            primary: (a.dtype, a.layout.shape.clone()),
            secondary: (b.dtype, b.layout.shape.clone()),
        });
    }
    if !only_primary.is_empty() {
        warnings.push(Warning::OnlyPrimary { names: only_primary });
    }
    if !only_secondary.is_empty() {
        warnings.push(Warning::OnlySecondary {
            names: only_secondary.iter().map(|(_, tensor)| tensor.name.clone()).collect(),
            taken: options.missing == Some(Missing::Union),
        });
    }
    if let (Some(vocab), true) = (vocab.vocab, vocab.by_word.is_some()) {
        check_axes_known(primary, &pairs, vocab)?;
    }
    if options.extend == Extend::Error {
        check_no_extension(primary, &pairs)?;
    }
    arrange(&mut pairs, primary, secondary);
    Ok(pairs)
}

/// The buffer that both tensors are, of those that the child copies from the primary.
fn both_buffers(name: &str, a: &TensorEntry, b: &TensorEntry) -> Option<KnownBuffer> {
    let [a, b] = [a, b].map(|tensor| KnownBuffer::of(name, tensor.dtype, &tensor.layout.shape));
    a.filter(|buffer| buffer.is_copied() && a == b)
}

/// Whether the child has a tensor in another dtype than the primary.
fn converted(a: &TensorEntry, options: &MergeOptions) -> bool {
    a.dtype.is_floating() && options.dtype.is_some_and(|dtype| dtype != a.dtype)
}

/// Shape in the child, the extension, and the rows by word.
type Fitted = (Vec<u64>, Option<Extension>, Option<WordRows>);

/// The child's shape of a pair, with the extension that it needs; else the mismatch in words.
fn fit(
    a: &TensorEntry,
    b: &TensorEntry,
    VocabRows { vocab, edges, by_word }: VocabRows<'_>,
) -> std::result::Result<Fitted, String> {
    let (shape_a, shape_b) = (&a.layout.shape, &b.layout.shape);
    if a.dtype != b.dtype && !(a.dtype.is_floating() && b.dtype.is_floating()) {
        return Err(format!("{}: {} and {}", escape(&a.name), a.dtype, b.dtype));
    }
    if let (Some(vocab), Some(by)) = (vocab, by_word)
        && let Some(axis) = word_axis(&a.name, shape_a, shape_b, vocab)
        && a.dtype.is_floating()
    {
        let mut shape = shape_a.clone();
        shape[axis] = by.rows;
        return Ok((shape, None, Some(WordRows { axis, by: Arc::clone(by) })));
    }
    if shape_a == shape_b {
        return Ok((shape_a.clone(), None, None));
    }
    if let Some(vocab) = vocab.filter(|_| by_word.is_none())
        && let Some(axis) = shared_axis(&a.name, shape_a, shape_b, vocab)
        && a.dtype.is_floating()
    {
        let primary_shorter = vocab.primary < vocab.secondary;
        let (side, shape) =
            if primary_shorter { (Side::Primary, shape_b) } else { (Side::Secondary, shape_a) };
        let from_rows = vocab.primary.min(vocab.secondary);
        let to_rows = vocab.child();
        let extension = Extension { side, from_rows, to_rows, axis, edges };
        return Ok((shape.clone(), Some(extension), None));
    }
    Err(format!("{}: {shape_a:?} and {shape_b:?}", escape(&a.name)))
}

/// A tensor that only one parent has. An output head of the shorter parent still gets the child's
/// rows: the child would not load otherwise.
fn alone(
    tensor: &TensorEntry,
    name: &str,
    (side, position): (Side, usize),
    VocabRows { vocab, edges, by_word }: VocabRows<'_>,
    options: &MergeOptions,
    warnings: &mut Vec<Warning>,
) -> Pair {
    let mut shape = tensor.layout.shape.clone();
    let (mut extension, mut rows_by_word) = (None, None);
    if let Some(vocab) = vocab {
        let own_rows = match side {
            Side::Primary => vocab.primary,
            Side::Secondary => vocab.secondary,
        };
        if let Some(by) = by_word
            && let Some(axis) = own_axis(name, &shape, own_rows)
            && tensor.dtype.is_floating()
        {
            shape[axis] = by.rows;
            rows_by_word = Some(WordRows { axis, by: Arc::clone(by) });
            if by.map(side).missing() > 0
                && matches!(options.extend, Extend::Bridge | Extend::Inherit)
            {
                warnings.push(Warning::ExtendAlone { name: name.to_owned() });
            }
        } else if by_word.is_none()
            && own_rows < vocab.child()
            && let Some(axis) = own_axis(name, &shape, own_rows)
            && tensor.dtype.is_floating()
        {
            let to_rows = vocab.child();
            shape[axis] = to_rows;
            extension = Some(Extension { side, from_rows: own_rows, to_rows, axis, edges });
            if matches!(options.extend, Extend::Bridge | Extend::Inherit) {
                warnings.push(Warning::ExtendAlone { name: name.to_owned() });
            }
        }
    }
    let (primary, secondary) = match side {
        Side::Primary => (Some(position), None),
        Side::Secondary => (None, Some(position)),
    };
    let buffer = KnownBuffer::of(name, tensor.dtype, &tensor.layout.shape);
    let by_word = rows_by_word;
    Pair { name: name.to_owned(), primary, secondary, shape, extension, by_word, buffer }
}

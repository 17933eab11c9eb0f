//! `MergePlan`: what the child will be, decided from headers, before a byte is written.

use std::sync::Arc;

use serde::Serialize;

use crate::checkpoint::config::NewRows;
use crate::checkpoint::split::{SplitTensor, split};
use crate::checkpoint::{Checkpoint, WeightNames};
use crate::error::{Error, Kind, Result};
use crate::format::WeightFormat;
use crate::merge::configs::differences::check_configs;
use crate::merge::options::{MergeOptions, VocabMode};
use crate::merge::pairs::pairing::{VocabRows, pair};
use crate::merge::parents::adapters;
use crate::merge::parents::refusals::{check_copied, check_parent};
use crate::merge::parents::shells::check_partners;
use crate::merge::plan::copies::copies;
use crate::merge::plan::integers::check_mostly_merged;
use crate::merge::plan::planned::{PlannedShard, PlannedStorage, PlannedTensor};
use crate::merge::plan::schedules::set_t;
use crate::merge::plan::storages::{storages, total_parameters};
use crate::merge::plan::untied::untied;
use crate::merge::ties::parents::Ties;
use crate::merge::vocab::by_word::{ByWord, by_word};
use crate::merge::vocab::comparison::{Comparison, check_words};
use crate::merge::vocab::edges::EdgeRows;
use crate::merge::vocab::rows::Vocab;
use crate::merge::warning::Warning;

/// A whole merge as a plain value: it can be printed, tested and serialised.
#[derive(Clone, Debug, Serialize)]
pub struct MergePlan {
    /// What was asked for.
    pub options: MergeOptions,
    /// Rows of the vocabularies, where the models have any.
    pub vocab: Option<Vocab>,
    /// What the words of their rows say of each other.
    pub words: Option<Comparison>,
    /// The child's rows by word, where that was asked for.
    pub by_word: Option<Arc<ByWord>>,
    /// Between which rows the shorter one is extended, where the extension is made of its rows.
    pub edges: Option<EdgeRows>,
    /// The child's tensors, in the order of its state dict.
    pub tensors: Vec<PlannedTensor>,
    /// The work: one per distinct storage of the child, in order of first use.
    pub storages: Vec<PlannedStorage>,
    /// The child's weight files.
    pub shards: Vec<PlannedShard>,
    /// How they are named: as the primary's loader looks for them.
    #[serde(skip)]
    pub names: WeightNames,
    /// Their format.
    pub format: WeightFormat,
    /// Whether one model is written anew, and nothing merged.
    #[serde(skip)]
    pub conversion: bool,
    /// Bytes of all distinct storages: the index's `total_size`.
    pub total_size: u64,
    /// Elements of all parameters: the index's `total_parameters`.
    pub total_parameters: u64,
    /// What the user should know.
    pub warnings: Vec<Warning>,
}

impl MergePlan {
    /// Rows of the child's vocabulary, where the models have any.
    pub fn child_rows(&self) -> Option<u64> {
        child_rows(self.vocab, self.by_word.as_deref())
    }
}

fn child_rows(vocab: Option<Vocab>, by_word: Option<&ByWord>) -> Option<u64> {
    by_word.map(|by| by.rows).or(vocab.map(|vocab| vocab.child()))
}

/// Makes the plan, or refuses the parents.
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
    check_partners(primary, secondary)?;
    let mut warnings = Vec::new();
    notes(primary, secondary, &mut warnings);
    check_configs(primary, secondary, options.force_config, &mut warnings)?;
    let vocab = Vocab::of(primary, secondary);
    let words = compare_words(primary, secondary, vocab, options, &mut warnings)?;
    let by_word = by_word(primary, secondary, vocab, options)?;
    let edges = vocab
        .filter(|_| by_word.is_none())
        .and_then(|vocab| EdgeRows::of(vocab, primary, secondary, options.extend));
    let rows = edges.as_ref().map(|edges| edges.rows).unwrap_or_default();
    let ties = Ties::of(primary, secondary);
    let space = VocabRows { vocab, edges: rows, by_word: by_word.as_ref() };
    let pairs = pair(primary, secondary, space, &ties, options, &mut warnings)?;
    if pairs.is_empty() {
        return Err(Error::new(Kind::Data, "there is nothing to merge")
            .file(&primary.path)
            .expected("at least one tensor", "none"));
    }
    let share = ties.share(primary, secondary, &pairs, options.force_config, &mut warnings)?;
    let (tensors, mut storages) =
        storages(primary, secondary, &pairs, &share, options, &mut warnings)?;
    check_mostly_merged([primary, secondary], &storages)?;
    set_t(primary, options, &tensors, &mut storages, &mut warnings)?;
    if let (Some(vocab), Some(new), Some(config)) =
        (vocab, child_rows(vocab, by_word.as_deref()), &primary.config)
        && config.rewrite(Some(NewRows { old: vocab.primary, new }), None)?.lacks_vocab_size
    {
        warnings.push(Warning::NoVocabSize { rows: new });
    }
    let edges = edges.filter(EdgeRows::are_used);
    let plan = written(primary, (tensors, storages), options, warnings);
    Ok(MergePlan { vocab, words, by_word, edges, ..plan })
}

/// The plan of a model that is written anew as it is: its own names, ties and values. What no merge can use
/// is copied all the same, but for what is no whole model.
///
/// # Errors
/// [`Kind::Data`] for parts of models, adapters, models without tensors, and quantised weights where
/// another dtype is asked for.
pub fn conversion(model: &Checkpoint, options: &MergeOptions) -> Result<MergePlan> {
    check_copied(model, options.dtype.is_some())?;
    let warnings: Vec<Warning> = model.notes.iter().cloned().map(Warning::Note).collect();
    let made = copies(model, options)?;
    if made.0.is_empty() {
        return Err(nothing(model));
    }
    Ok(MergePlan { conversion: true, ..written(model, made, options, warnings) })
}

fn nothing(model: &Checkpoint) -> Error {
    Error::new(Kind::Data, "there is nothing to write")
        .file(&model.path)
        .expected("at least one tensor", "none")
}

/// The child's files for these tensors and storages.
fn written(
    primary: &Checkpoint,
    (tensors, storages): (Vec<PlannedTensor>, Vec<PlannedStorage>),
    options: &MergeOptions,
    mut warnings: Vec<Warning>,
) -> MergePlan {
    let total_parameters = total_parameters(primary, &storages);
    let format = options.format.unwrap_or(primary.format());
    let (tensors, storages) = match format {
        WeightFormat::Bin => (tensors, storages),
        WeightFormat::Safetensors => untied(primary, &tensors, &storages, &mut warnings),
    };
    let members: Vec<SplitTensor> = tensors
        .iter()
        .map(|tensor| SplitTensor {
            storage: tensor.storage,
            storage_bytes: storages[tensor.storage].size_bytes(),
        })
        .collect();
    let split = split(&members, options.max_shard_bytes);
    let shards = primary
        .names
        .shards(format, split.shards.len())
        .into_iter()
        .zip(split.shards)
        .map(|(file_name, tensors)| PlannedShard { file_name, tensors })
        .collect();
    if primary.config.as_ref().is_some_and(|config| config.facts().needs_custom_code)
        && !options.copy_code
    {
        warnings.push(Warning::CustomCode);
    }
    MergePlan {
        options: options.clone(),
        vocab: None,
        words: None,
        by_word: None,
        edges: None,
        total_size: split.total_bytes,
        total_parameters,
        tensors,
        storages,
        shards,
        names: primary.names,
        format,
        conversion: false,
        warnings,
    }
}

/// What the words of both vocabularies say of each other, refused where they may not be merged as asked.
fn compare_words(
    primary: &Checkpoint,
    secondary: &Checkpoint,
    vocab: Option<Vocab>,
    options: &MergeOptions,
    warnings: &mut Vec<Warning>,
) -> Result<Option<Comparison>> {
    let (ours, theirs) = (&primary.vocabulary, &secondary.vocabulary);
    if let (Some(template), Some(other)) = (ours.chat_template(), theirs.chat_template())
        && template != other
    {
        warnings.push(Warning::ChatTemplates);
    }
    let Some(vocab) = vocab else { return Ok(None) };
    let words = Comparison::of(ours, theirs, vocab);
    if options.vocab == VocabMode::Check {
        check_words(&words, secondary)?;
    }
    Ok(Some(words))
}

fn notes(primary: &Checkpoint, secondary: &Checkpoint, warnings: &mut Vec<Warning>) {
    for (parent, checkpoint) in [("primary", primary), ("secondary", secondary)] {
        if checkpoint.config.is_none() {
            warnings.push(Warning::NoConfig { parent });
        }
        for note in checkpoint.notes.iter().chain(&adapters::left_aside(checkpoint)) {
            warnings.push(Warning::Note(format!("{parent}: {note}")));
        }
    }
}

//! Runs a whole merge: opens both parents, has the plan made, checks it against the disk, writes
//! the children, completes them with config and tokenizer, and puts them in their places.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use crate::checkpoint::{
    Checkpoint, ChildLayout, ChildRows, ChildWriter, Opened, PROVENANCE_FILE, ShardSpec, Side,
    SideFileOptions, SideFiles, Staging, WordsOfChild, check_apart, check_output, check_room,
    file_of, locate,
};
use crate::engine::faults;
use crate::engine::prepared::{Job, Prepared};
use crate::engine::provenance;
use crate::engine::report::MergeReport;
use crate::engine::reporter::Reporter;
use crate::engine::resume;
use crate::engine::settings::Settings;
use crate::engine::workers::execute;
use crate::error::{Error, Kind, Result};
use crate::format::EmitTensor;
use crate::merge::{MergePlan, conversion, cut, is_whole, plan, unsure};

/// A finished merge.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The children's directories.
    pub outputs: Vec<PathBuf>,
    /// Those of them that a resumed merge found complete.
    pub complete: Vec<PathBuf>,
    /// What was done, tensor by tensor; nothing where every child was complete.
    pub report: MergeReport,
    /// Wall time in seconds, opening included.
    pub seconds: f64,
}

/// Opens both parents and decides everything; writes nothing, and reads no data except where only the
/// bytes tell whether an output head is the embedding.
///
/// # Errors
/// Everything that would make the merge fail, as far as headers and the disk tell it.
pub fn prepare(mut job: Job) -> Result<Prepared> {
    job.primary = locate(&job.primary)?;
    job.secondary = locate(&job.secondary)?;
    check_outputs(&job)?;
    let open = |path: &Path| -> Result<Checkpoint> {
        let mut parent = Checkpoint::open_as(path, &job.opening)?;
        parent.compare(&unsure(&parent))?;
        parent.read_vocabulary()?;
        Ok(parent)
    };
    let (mut primary, mut secondary) = (open(&job.primary)?, open(&job.secondary)?);
    let slices = &job.options.slices;
    if is_whole(&primary, Side::Primary, slices) && is_whole(&secondary, Side::Secondary, slices) {
        job.options.slices.clear();
    } else if !slices.is_empty() {
        let force = job.options.force_config;
        primary = cut(primary, Side::Primary, slices, force)?;
        secondary = cut(secondary, Side::Secondary, slices, force)?;
    }
    let plan = plan(&primary, &secondary, &job.options)?;
    let rows = plan.vocab.zip(plan.child_rows()).map(|(vocab, child)| ChildRows {
        primary: vocab.primary,
        secondary: vocab.secondary,
        child,
    });
    let extends = plan.words.as_ref().and_then(|words| words.extends());
    let options =
        SideFileOptions { rows, extends, by_word: by_word(&plan), ..side_file_options(&job) };
    let side_files = SideFiles::gather(&primary, &secondary, options)?;
    prepared(job, (primary, secondary), plan, side_files)
}

/// Opens the model that is the job's primary, to be written anew; its secondary is not looked at.
///
/// # Errors
/// Everything that would make the conversion fail, as far as headers and the disk tell it.
pub fn prepare_conversion(mut job: Job) -> Result<Prepared> {
    job.primary = locate(&job.primary)?;
    job.secondary = job.primary.clone();
    check_outputs(&job)?;
    let model = Checkpoint::open_as(&job.primary, &job.opening)?;
    let plan = conversion(&model, &job.options)?;
    let side_files = SideFiles::gather(&model, &model, side_file_options(&job))?;
    let nobody = Checkpoint::none(&model.path);
    prepared(job, (model, nobody), plan, side_files)
}

fn side_file_options(job: &Job) -> SideFileOptions<'static> {
    SideFileOptions {
        rows: None,
        extends: None,
        by_word: None,
        dtype: job.options.dtype,
        tokenizer: job.options.tokenizer,
        copy_code: job.options.copy_code,
        no_follow: job.opening.strictness.no_follow,
    }
}

fn check_outputs(job: &Job) -> Result<()> {
    let outputs = &job.outputs;
    if !outputs.is_empty() && outputs.len() != job.options.children.len() {
        return Err(Error::new(Kind::Internal, "not as many outputs as children"));
    }
    let files = [file_of(&job.primary), file_of(&job.secondary)];
    let parents = [files[0].as_path(), files[1].as_path()];
    for output in outputs {
        if job.resume {
            // It may find its own child, which is known when the plan is.
            check_apart(output, &parents)?;
        } else {
            check_output(output, &parents, job.overwrite)?;
        }
    }
    Ok(())
}

/// What is planned, laid out at its outputs, as far as it is not there yet.
fn prepared(
    job: Job,
    (primary, secondary): (Checkpoint, Checkpoint),
    plan: MergePlan,
    side_files: SideFiles,
) -> Result<Prepared> {
    let outputs = job.outputs.clone();
    let layouts = match outputs.as_slice() {
        [] => vec![layout(&plan, Path::new("child"))?],
        several => several.iter().map(|output| layout(&plan, output)).collect::<Result<_>>()?,
    };
    let weight_bytes = layouts.first().map_or(0, ChildLayout::total_bytes);
    let complete = vec![false; outputs.len()];
    let mut prepared = Prepared {
        primary,
        secondary,
        plan,
        outputs,
        side_files,
        weight_bytes,
        layouts,
        complete,
        job,
    };
    prepared.find_complete()?;
    let missing: Vec<PathBuf> = prepared.missing().map(Path::to_path_buf).collect();
    check_room(&missing, prepared.child_bytes(), prepared.child_files())?;
    Ok(prepared)
}

/// The words that the child's tokenizer must have, where rows are merged by word.
fn by_word(plan: &MergePlan) -> Option<WordsOfChild<'_>> {
    let new_words = &plan.by_word.as_ref()?.new_words;
    Some(WordsOfChild { new_words })
}

fn layout(plan: &MergePlan, output: &Path) -> Result<ChildLayout> {
    let specs: Vec<ShardSpec> = plan
        .shards
        .iter()
        .map(|shard| ShardSpec {
            file_name: shard.file_name.clone(),
            tensors: shard
                .tensors
                .iter()
                .map(|position| {
                    let tensor = &plan.tensors[*position];
                    let storage = &plan.storages[tensor.storage];
                    EmitTensor::contiguous(
                        &tensor.name,
                        storage.dtype,
                        &storage.shape,
                        tensor.storage,
                    )
                })
                .collect(),
        })
        .collect();
    let sizes: Vec<u64> = plan.storages.iter().map(|storage| storage.size_bytes()).collect();
    ChildLayout::new(output, (plan.names, plan.format), &specs, &sizes)
}

/// Runs a prepared merge. Each child appears complete or not at all; of several, one after the other.
/// Interrupted, it leaves what is written so far for a run that resumes it; after any other error
/// nothing is left.
///
/// # Errors
/// As [`execute`] and [`ChildWriter::commit`].
pub fn run(
    mut prepared: Prepared,
    settings: &Settings<'_>,
    reporter: &dyn Reporter,
    started: Instant,
) -> Result<(MergePlan, Outcome)> {
    let pairs = prepared.outputs.iter().zip(&prepared.complete);
    let complete: Vec<PathBuf> = pairs.filter(|pair| *pair.1).map(|pair| pair.0.clone()).collect();
    for output in &complete {
        // What a crash between the rename and the end left beside the child.
        drop(Staging::create(output, prepared.job.fsync)?);
        log::info!("{} is complete", output.display());
    }
    let report = if complete.len() == prepared.outputs.len() {
        MergeReport::default()
    } else {
        let mut writers = writers(&mut prepared, settings)?;
        match make(&prepared, &mut writers, settings, reporter) {
            Ok(report) => report,
            Err(error) => return Err(left(writers, error)),
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    let outcome = Outcome { outputs: prepared.outputs, complete, report, seconds };
    Ok((prepared.plan, outcome))
}

/// The children in the making, one per output.
fn writers(prepared: &mut Prepared, settings: &Settings<'_>) -> Result<Vec<ChildWriter>> {
    let layouts = std::mem::take(&mut prepared.layouts);
    let n_children = prepared.missing().count();
    let pairs = prepared.outputs.iter().zip(0..);
    let mut writers = Vec::with_capacity(layouts.len());
    for (((output, child), layout), complete) in pairs.zip(layouts).zip(&prepared.complete) {
        if *complete {
            writers.push(ChildWriter::complete(layout));
            continue;
        }
        let parents = [&prepared.primary, &prepared.secondary];
        let origin = provenance::origin(prepared, child)?;
        let header = resume::header(&prepared.plan, child, parents, settings.devices, origin)?;
        let Job { fsync, resume, .. } = prepared.job;
        let how = Opened { fsync, header: &header, resume, n_children };
        match ChildWriter::create(output, layout, how) {
            Ok(writer) => writers.push(writer),
            Err(error) => {
                // Those before it may be an interrupted run's: they stay what they were.
                if resume {
                    writers.into_iter().for_each(|writer| drop(writer.keep()));
                }
                return Err(error);
            }
        }
    }
    Ok(writers)
}

/// Fills the children and puts them in their places, taking them out of `writers`.
fn make(
    prepared: &Prepared,
    writers: &mut Vec<ChildWriter>,
    settings: &Settings<'_>,
    reporter: &dyn Reporter,
) -> Result<MergeReport> {
    let report = execute(
        &prepared.plan,
        &prepared.primary,
        &prepared.secondary,
        writers,
        settings,
        reporter,
    )?;
    if faults::writes_nothing() {
        return Err(faults::wrote_nothing());
    }
    for (child, writer) in writers.iter().enumerate() {
        let Some(staging) = writer.staging() else { continue };
        prepared.side_files.write(staging)?;
        let provenance = provenance::text(prepared, &report, child)?;
        staging.write_file(PROVENANCE_FILE, provenance.as_bytes())?;
    }
    while !writers.is_empty() {
        if let Some(error) = (settings.interrupted)() {
            return Err(error);
        }
        writers.remove(0).commit(prepared.job.overwrite)?;
    }
    Ok(report)
}

/// Interrupted work stays on disk, and the error says where; other work goes.
fn left(writers: Vec<ChildWriter>, error: Error) -> Error {
    if !matches!(error.kind(), Kind::Interrupted | Kind::Terminated) {
        return error;
    }
    let left: Vec<PathBuf> = writers.into_iter().filter_map(ChildWriter::keep).collect();
    error
        .with_hint("the same command with --resume goes on; without it, the next run starts anew")
        .left_on_disk(left)
}

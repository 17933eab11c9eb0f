//! A whole merge: both parents opened, the plan made and checked against the disk, the children
//! written, completed with config and tokenizer, and put in their places.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::checkpoint::{
    Checkpoint, ChildLayout, ChildWriter, Opened, Opening, ShardSpec, SideFileOptions, SideFiles,
    Staging, check_apart, check_output, check_room, file_of, has_journal, is_marked, locate,
};
use crate::engine::provenance::{self, ChildState};
use crate::engine::report::MergeReport;
use crate::engine::reporter::Reporter;
use crate::engine::resume;
use crate::engine::schedule::execute;
use crate::engine::settings::Settings;
use crate::error::{Error, Kind, Result};
use crate::format::EmitTensor;
use crate::merge::{MergeOptions, MergePlan, plan, unsure};

/// What is to be merged into what.
#[derive(Clone, Debug)]
pub struct Job {
    /// Model directory, checkpoint file, `FILE::KEY` or name in the local Hub cache at t = 0.
    pub primary: PathBuf,
    /// The same at t = 1.
    pub secondary: PathBuf,
    /// The children's directories, one per value of t; none where only a plan is wanted. See
    /// [`expand_outputs`](crate::engine::expand_outputs).
    pub outputs: Vec<PathBuf>,
    /// Everything that decides what the child is.
    pub options: MergeOptions,
    /// Replace an existing child.
    pub overwrite: bool,
    /// Go on with what an interrupted run left, and leave children alone that are there already.
    pub resume: bool,
    /// Flush every file before the child appears.
    pub fsync: bool,
    /// How the parents are opened: what is refused of them, and what may stand beside their weights.
    pub opening: Opening,
    /// Asked while a parent is read again to see whether a child was made from it.
    pub interrupted: Interrupted,
}

/// The error to stop with once a signal has come; the default never stops.
#[derive(Clone, Default)]
pub struct Interrupted(Option<Arc<dyn Fn() -> Option<Error> + Send + Sync>>);

impl Interrupted {
    /// Asks `signal`.
    pub fn by(signal: impl Fn() -> Option<Error> + Send + Sync + 'static) -> Interrupted {
        Interrupted(Some(Arc::new(signal)))
    }

    fn go_on(&self) -> Result<()> {
        self.0.as_ref().and_then(|signal| signal()).map_or(Ok(()), Err)
    }
}

impl std::fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "by a signal" } else { "never" })
    }
}

/// A merge that is planned, checked and ready to run.
#[derive(Debug)]
pub struct Prepared {
    /// The primary's headers.
    pub primary: Checkpoint,
    /// The secondary's headers.
    pub secondary: Checkpoint,
    /// What will be done.
    pub plan: MergePlan,
    /// The children's directories, one per t; empty where no output was named (`plan`).
    pub outputs: Vec<PathBuf>,
    /// config.json and tokenizer files of the children.
    pub side_files: SideFiles,
    /// Bytes of one child's weight files.
    pub weight_bytes: u64,
    layouts: Vec<ChildLayout>,
    /// Per output: the very child is there already, and stays.
    complete: Vec<bool>,
    job: Job,
}

impl Prepared {
    /// Bytes that one child will take, config and tokenizer files included.
    pub fn child_bytes(&self) -> u64 {
        self.weight_bytes.saturating_add(self.side_files.total_bytes())
    }

    /// Whether `output` holds the very child that this merge would make at `t`.
    ///
    /// # Errors
    /// [`Kind::Output`] where the output can't be looked at; those of reading a parent without CRCs
    /// again; what [`Job::interrupted`] says.
    pub fn child_state(&self, output: &Path, t: f64) -> Result<ChildState> {
        provenance::child_state(self, output, t, &|| self.job.interrupted.go_on())
    }

    /// Files of one child, those beside its weights included.
    pub fn child_files(&self) -> u64 {
        (self.weight_files().len() as u64).saturating_add(self.side_files.count())
    }

    /// Outputs whose child is not there yet.
    fn missing(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.outputs.iter().zip(&self.complete);
        pairs.filter(|pair| !pair.1).map(|pair| pair.0.as_path())
    }

    /// Notes which children a resumed merge need not make.
    fn find_complete(&mut self) -> Result<()> {
        if !self.job.resume {
            return Ok(());
        }
        let files = [file_of(&self.job.primary), file_of(&self.job.secondary)];
        let parents = [files[0].as_path(), files[1].as_path()];
        for (position, (output, t)) in self.outputs.iter().zip(&self.plan.options.t).enumerate() {
            // With --overwrite, an older child of the same merge may be about to be replaced.
            let begun = (self.job.overwrite && has_journal(output)) || is_marked(output);
            if !begun && self.child_state(output, *t)? == ChildState::Done {
                self.complete[position] = true;
            } else {
                check_output(output, &parents, self.job.overwrite)?;
            }
        }
        Ok(())
    }

    /// Names and sizes in bytes of one child's weight files.
    pub(crate) fn weight_files(&self) -> Vec<(String, u64)> {
        let files =
            |layout: &ChildLayout| layout.files(self.plan.total_size, self.plan.total_parameters);
        self.layouts.first().map(files).unwrap_or_default()
    }
}

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

/// Opens both parents and decides everything; writes nothing, and reads no data but where only the
/// bytes tell whether an output head is the embedding.
///
/// # Errors
/// Everything that would make the merge fail, as far as headers and the disk tell it.
pub fn prepare(mut job: Job) -> Result<Prepared> {
    job.primary = locate(&job.primary)?;
    job.secondary = locate(&job.secondary)?;
    let outputs = job.outputs.clone();
    if !outputs.is_empty() && outputs.len() != job.options.t.len() {
        return Err(Error::new(Kind::Internal, "not as many outputs as values of t"));
    }
    let files = [file_of(&job.primary), file_of(&job.secondary)];
    let parents = [files[0].as_path(), files[1].as_path()];
    for output in &outputs {
        if job.resume {
            // It may find its own child, which is known when the plan is.
            check_apart(output, &parents)?;
        } else {
            check_output(output, &parents, job.overwrite)?;
        }
    }
    let open = |path: &Path| -> Result<Checkpoint> {
        let mut parent = Checkpoint::open_as(path, &job.opening)?;
        parent.compare(&unsure(&parent))?;
        Ok(parent)
    };
    let (primary, secondary) = (open(&job.primary)?, open(&job.secondary)?);
    let plan = plan(&primary, &secondary, &job.options)?;
    let side_files = SideFiles::gather(
        &primary,
        &secondary,
        SideFileOptions {
            rows: plan.vocab.map(|vocab| (vocab.primary, vocab.secondary)),
            dtype: job.options.dtype,
            tokenizer: job.options.tokenizer,
            copy_code: job.options.copy_code,
            no_follow: job.opening.strictness.no_follow,
        },
    )?;
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
    ChildLayout::new(output, plan.names, &specs, &sizes)
}

/// Runs a prepared merge; every child appears complete, or none does. Interrupted, it leaves what is
/// written so far for a run that resumes it; after any other error nothing is left.
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
        MergeReport { t: prepared.plan.options.t.clone(), ..MergeReport::default() }
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
    let pairs = prepared.outputs.iter().zip(&prepared.plan.options.t);
    let mut writers = Vec::with_capacity(layouts.len());
    for (((output, t), layout), complete) in pairs.zip(layouts).zip(&prepared.complete) {
        if *complete {
            writers.push(ChildWriter::complete(layout));
            continue;
        }
        let parents = [&prepared.primary, &prepared.secondary];
        let origin = provenance::origin(prepared, *t)?;
        let header = resume::header(&prepared.plan, parents, settings.devices, origin)?;
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
    for (writer, t) in writers.iter().zip(&prepared.plan.options.t) {
        let Some(staging) = writer.staging() else { continue };
        prepared.side_files.write(staging)?;
        let provenance = provenance::text(prepared, &report, *t)?;
        staging.write_file(provenance::FILE_NAME, provenance.as_bytes())?;
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

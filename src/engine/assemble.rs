//! A whole merge: both parents opened, the plan made and checked against the disk, the children
//! written, completed with config and tokenizer, and put in their places.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use crate::checkpoint::{
    Checkpoint, ChildLayout, ChildWriter, ShardSpec, SideFileOptions, SideFiles, check_output,
    check_room, locate,
};
use crate::engine::provenance::{self, ChildState};
use crate::engine::report::MergeReport;
use crate::engine::reporter::Reporter;
use crate::engine::schedule::{Settings, execute};
use crate::error::{Error, Kind, Result};
use crate::format::EmitTensor;
use crate::merge::{MergeOptions, MergePlan, plan};

/// What is to be merged into what.
#[derive(Clone, Debug)]
pub struct Job {
    /// Model directory, checkpoint file or name in the local Hub cache at t = 0.
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
    /// Flush every file before the child appears.
    pub fsync: bool,
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
    /// [`Kind::Output`] where the output can't be looked at.
    pub fn child_state(&self, output: &Path, t: f64) -> Result<ChildState> {
        provenance::child_state(self, output, t)
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
    /// What was done, tensor by tensor.
    pub report: MergeReport,
    /// Wall time in seconds, opening included.
    pub seconds: f64,
}

/// Opens both parents and decides everything; reads no data and writes nothing.
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
    let parents = [job.primary.as_path(), job.secondary.as_path()];
    for output in &outputs {
        check_output(output, &parents, job.overwrite)?;
    }
    let primary = Checkpoint::open(&job.primary)?;
    let secondary = Checkpoint::open(&job.secondary)?;
    let plan = plan(&primary, &secondary, &job.options)?;
    let side_files = SideFiles::gather(
        &primary,
        &secondary,
        SideFileOptions {
            rows: plan.vocab.map(|vocab| (vocab.primary, vocab.secondary)),
            dtype: job.options.dtype,
            tokenizer: job.options.tokenizer,
            copy_code: job.options.copy_code,
        },
    )?;
    let layouts = match outputs.as_slice() {
        [] => vec![layout(&plan, Path::new("child"))?],
        several => several.iter().map(|output| layout(&plan, output)).collect::<Result<_>>()?,
    };
    let weight_bytes = layouts.first().map_or(0, ChildLayout::total_bytes);
    check_room(&outputs, weight_bytes.saturating_add(side_files.total_bytes()))?;
    Ok(Prepared { primary, secondary, plan, outputs, side_files, weight_bytes, layouts, job })
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
    ChildLayout::new(output, &specs, &sizes)
}

/// Runs a prepared merge; every child appears complete, or none does.
///
/// # Errors
/// As [`execute`] and [`ChildWriter::commit`].
pub fn run(
    mut prepared: Prepared,
    settings: &Settings<'_>,
    reporter: &dyn Reporter,
    started: Instant,
) -> Result<(MergePlan, Outcome)> {
    let layouts = std::mem::take(&mut prepared.layouts);
    let writers = prepared
        .outputs
        .iter()
        .zip(layouts)
        .map(|(output, layout)| ChildWriter::create(output, layout, prepared.job.fsync))
        .collect::<Result<Vec<_>>>()?;
    let report = execute(
        &prepared.plan,
        &prepared.primary,
        &prepared.secondary,
        &writers,
        settings,
        reporter,
    )?;
    for (writer, t) in writers.iter().zip(&prepared.plan.options.t) {
        prepared.side_files.write(writer.staging())?;
        let provenance = provenance::text(&prepared, &report, *t)?;
        writer.staging().write_file(provenance::FILE_NAME, provenance.as_bytes())?;
    }
    for writer in writers {
        if let Some(error) = (settings.interrupted)() {
            return Err(error);
        }
        writer.commit(prepared.job.overwrite)?;
    }
    let outcome =
        Outcome { outputs: prepared.outputs, report, seconds: started.elapsed().as_secs_f64() };
    Ok((prepared.plan, outcome))
}

//! A whole merge: both parents opened, the plan made and checked against the disk, the children
//! written, completed with config and tokenizer, and put in their places.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use crate::checkpoint::{
    Checkpoint, ChildLayout, ChildWriter, ShardSpec, SideFileOptions, SideFiles, check_output,
    check_room,
};
use crate::engine::report::MergeReport;
use crate::engine::reporter::Reporter;
use crate::engine::schedule::{Settings, execute};
use crate::error::{Error, Kind, Result};
use crate::format::EmitTensor;
use crate::merge::{MergeOptions, MergePlan, Warning, plan};

/// What is to be merged into what.
#[derive(Clone, Debug)]
pub struct Job {
    /// Model directory or checkpoint file at t = 0.
    pub primary: PathBuf,
    /// Model directory or checkpoint file at t = 1.
    pub secondary: PathBuf,
    /// The child's directory; holds `{t}` where there are several values of t.
    pub output: Option<PathBuf>,
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
pub fn prepare(job: Job) -> Result<Prepared> {
    let outputs = match &job.output {
        Some(output) => outputs(output, &job.options.t)?,
        None => Vec::new(),
    };
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
    if let Some(first) = outputs.first() {
        let all = layouts.iter().map(ChildLayout::total_bytes).fold(0, u64::saturating_add);
        let n_children = u64::try_from(outputs.len()).unwrap_or(1);
        let beside = side_files.total_bytes().saturating_mul(n_children);
        check_room(first, all.saturating_add(beside))?;
    }
    Ok(Prepared { primary, secondary, plan, outputs, side_files, weight_bytes, layouts, job })
}

/// The children's directories: `{t}` stands for the value of t.
fn outputs(template: &Path, t: &[f64]) -> Result<Vec<PathBuf>> {
    let text = template.as_os_str().as_encoded_bytes();
    let has_t = text.windows(3).any(|window| window == b"{t}");
    if !has_t && t.len() == 1 {
        return Ok(vec![template.to_path_buf()]);
    }
    let Some(text) = template.to_str().filter(|_| has_t) else {
        return Err(Error::new(Kind::Usage, "several values of t need an output each")
            .file(template)
            .expected("`{t}` in --output", "none")
            .with_hint("for example `-o child-{t}`"));
    };
    let mut outputs: Vec<PathBuf> = Vec::with_capacity(t.len());
    for value in t {
        let output = PathBuf::from(text.replace("{t}", &value.to_string()));
        if outputs.contains(&output) {
            return Err(Error::new(Kind::Usage, "the same t is given twice")
                .file(template)
                .expected("different values of --t", value.to_string()));
        }
        outputs.push(output);
    }
    Ok(outputs)
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
        let provenance = provenance(&prepared, &report, *t)?;
        writer.staging().write_file("slerp_merge.json", provenance.as_bytes())?;
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

/// slerp_merge.json: what made this child, from what, tensor by tensor.
fn provenance(prepared: &Prepared, report: &MergeReport, t: f64) -> Result<String> {
    #[derive(Serialize)]
    struct Provenance<'a> {
        tool: &'static str,
        version: &'static str,
        t: f64,
        options: &'a MergeOptions,
        primary: Parent,
        secondary: Parent,
        tokenizer: Option<&'a str>,
        warnings: Vec<&'a Warning>,
        tensors: &'a [crate::engine::report::TensorReport],
    }
    let value = Provenance {
        tool: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        t,
        options: &prepared.plan.options,
        primary: Parent::of(&prepared.primary),
        secondary: Parent::of(&prepared.secondary),
        tokenizer: prepared.side_files.tokenizer_reason.as_deref(),
        warnings: prepared.plan.warnings.iter().chain(&report.warnings).collect(),
        tensors: &report.tensors,
    };
    let mut text = serde_json::to_string_pretty(&value).map_err(|error| {
        Error::new(Kind::Internal, "cannot make slerp_merge.json").expected("", error.to_string())
    })?;
    text.push('\n');
    Ok(text)
}

/// A parent in the provenance: where it was, and what its files were.
#[derive(Serialize)]
struct Parent {
    path: PathBuf,
    files: Vec<ParentFile>,
}

#[derive(Serialize)]
struct ParentFile {
    name: String,
    size_bytes: u64,
    /// CRC-32 over the CRCs that the file keeps of its storages: changes with any of the data.
    fingerprint: String,
}

impl Parent {
    fn of(checkpoint: &Checkpoint) -> Parent {
        let mut files = Vec::with_capacity(checkpoint.files.len());
        for (position, file) in checkpoint.files.iter().enumerate() {
            let mut bytes = Vec::new();
            for storage in checkpoint.inventory.storages.iter().filter(|s| s.file == position) {
                bytes.extend_from_slice(storage.key.as_bytes());
                bytes.extend_from_slice(&storage.size_bytes.to_le_bytes());
                bytes.extend_from_slice(&storage.crc32.unwrap_or(0).to_le_bytes());
            }
            files.push(ParentFile {
                name: file.path().file_name().unwrap_or_default().to_string_lossy().into_owned(),
                size_bytes: file.identity().size_bytes,
                fingerprint: format!("{:08x}", crate::engine::source::crc32(&bytes)),
            });
        }
        let path = checkpoint.path.canonicalize().unwrap_or_else(|_| checkpoint.path.clone());
        Parent { path, files }
    }
}

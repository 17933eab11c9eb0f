//! The result of one merge of a batch, as `--json` and the record give it.

use std::path::PathBuf;

use serde::Serialize;

use crate::batch::events::Failure;
use crate::tensor::JsonPath;

/// How a merge of a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Its children were made.
    Merged,
    /// Its children existed already.
    Present,
    /// It was tried and failed.
    Failed,
    /// Planning found an error in it.
    Refused,
    /// It was not tried: the batch stopped before.
    NotRun,
}

impl Status {
    /// The word in the table and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Status::Merged => "merged",
            Status::Present => "present",
            Status::Failed => "failed",
            Status::Refused => "refused",
            Status::NotRun => "not-run",
        }
    }
}

/// The result of one merge, as `--json` and the record give it.
#[derive(Clone, Debug, Serialize)]
pub struct JobResult {
    /// Position in the manifest, from 0.
    pub job: usize,
    /// Its name, where the manifest gives one.
    pub name: Option<String>,
    /// How it ended.
    pub result: Status,
    /// Wall time of the sweep that made it, in seconds.
    pub seconds: f64,
    /// Its children's directories.
    pub outputs: Vec<JsonPath>,
    /// All merges of that sweep, this one included; the parents were read once for all of them.
    pub sweep: Vec<usize>,
    /// Bytes of the parents that the sweep read.
    pub bytes_read: u64,
    /// What went wrong.
    pub errors: Vec<Failure>,
}

impl JobResult {
    /// A result of a merge that has not run.
    pub(crate) fn new(
        job: usize,
        name: Option<String>,
        result: Status,
        outputs: &[PathBuf],
    ) -> JobResult {
        JobResult {
            job,
            name,
            result,
            seconds: 0.0,
            outputs: JsonPath::list(outputs),
            sweep: Vec::new(),
            bytes_read: 0,
            errors: Vec::new(),
        }
    }
}

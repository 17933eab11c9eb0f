//! `Job`, what is to be merged into what, and `Prepared`, a merge that is planned, checked and
//! ready to run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, ChildLayout, Opening, SideFiles};
use crate::error::{Error, Result};
use crate::merge::{MergeOptions, MergePlan};

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

    pub(crate) fn go_on(&self) -> Result<()> {
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
    pub(crate) layouts: Vec<ChildLayout>,
    /// Per output: the very child is there already, and stays.
    pub(crate) complete: Vec<bool>,
    pub(crate) job: Job,
}

impl Prepared {
    /// Bytes that one child will take, config and tokenizer files included.
    pub fn child_bytes(&self) -> u64 {
        self.weight_bytes.saturating_add(self.side_files.total_bytes())
    }

    /// Files of one child, those beside its weights included.
    pub fn child_files(&self) -> u64 {
        (self.weight_files().len() as u64).saturating_add(self.side_files.count())
    }

    /// Outputs whose child is not there yet.
    pub(crate) fn missing(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.outputs.iter().zip(&self.complete);
        pairs.filter(|pair| !pair.1).map(|pair| pair.0.as_path())
    }

    /// Names and sizes in bytes of one child's weight files.
    pub(crate) fn weight_files(&self) -> Vec<(String, u64)> {
        let files =
            |layout: &ChildLayout| layout.files(self.plan.total_size, self.plan.total_parameters);
        self.layouts.first().map(files).unwrap_or_default()
    }
}

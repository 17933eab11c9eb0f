//! The merges of a batch once planned: `PlannedJob`, its options and its children.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::batch::outcome::{JobResult, Status};
use crate::checkpoint::Opening;
use crate::engine::{DeviceChoice, Interrupted, Job};
use crate::merge::{Child, MergeOptions};

/// A merge that can run.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedJob {
    /// Position in the manifest, from 0.
    pub index: usize,
    /// Its name, where the manifest gives one.
    pub name: Option<String>,
    /// Model at t = 0.
    pub primary: PathBuf,
    /// Model at t = 1.
    pub secondary: PathBuf,
    /// Everything else that it asks for.
    pub options: JobOptions,
    /// Its children, one per t.
    pub children: Vec<PlannedChild>,
}

/// What a merge asks for beside its parents and outputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobOptions {
    /// Everything that decides what the children are.
    pub merge: MergeOptions,
    /// How the parents are opened.
    pub opening: Opening,
    /// Replace children that are there and differ.
    pub overwrite: bool,
    /// Flush every file before a child appears.
    pub fsync: bool,
    /// Where to compute.
    pub device: DeviceChoice,
    /// Bytes of each device's memory that may be used.
    pub device_bytes: Option<u64>,
    /// Worker threads; `None` where the manifest leaves them to the batch.
    pub threads: Option<usize>,
    /// Bytes for tensors that are kept between the two passes.
    pub memory_bytes: u64,
    /// Whether the manifest sets these bytes; if not, sweeps that run at once divide them.
    pub memory_is_named: bool,
}

impl JobOptions {
    /// Whether both differ in their children at most.
    pub(crate) fn differ_in_children_only(&self, other: &JobOptions) -> bool {
        let mut other = other.clone();
        other.merge.children.clone_from(&self.merge.children);
        *self == other
    }

    /// Whether both differ in what t the tensors have that no filter fits, at most.
    pub(crate) fn differ_in_t_only(&self, other: &JobOptions) -> bool {
        let (ours, theirs) = (&self.merge.children, &other.merge.children);
        let mut pairs = ours.iter().flat_map(|one| theirs.iter().map(move |other| (one, other)));
        self.differ_in_children_only(other)
            && pairs.all(|(one, other)| one.schedule.filters == other.schedule.filters)
    }

    /// The merge of these parents, with no outputs yet.
    pub(crate) fn job(&self, primary: &Path, secondary: &Path, interrupted: Interrupted) -> Job {
        Job {
            primary: primary.to_path_buf(),
            secondary: secondary.to_path_buf(),
            outputs: Vec::new(),
            options: self.merge.clone(),
            overwrite: self.overwrite,
            resume: false,
            fsync: self.fsync,
            opening: self.opening.clone(),
            interrupted,
        }
    }
}

/// A child that is to be made, or is there already.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedChild {
    /// What it is called, and where it lies between the parents.
    pub child: Child,
    /// Its directory.
    pub output: PathBuf,
    /// Bytes that it takes.
    pub bytes: u64,
    /// Files that it takes.
    pub files: u64,
    /// Whether it is there already, the same as would be made.
    pub present: bool,
}

impl PlannedJob {
    /// Its result, once it has this status.
    pub fn result(&self, status: Status) -> JobResult {
        let outputs: Vec<PathBuf> =
            self.children.iter().map(|child| child.output.clone()).collect();
        JobResult::new(self.index, self.name.clone(), status, &outputs)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn options() -> JobOptions {
        JobOptions {
            merge: MergeOptions::default(),
            opening: Opening::default(),
            overwrite: false,
            fsync: true,
            device: DeviceChoice::Auto,
            device_bytes: None,
            threads: None,
            memory_bytes: 1000,
            memory_is_named: false,
        }
    }
}

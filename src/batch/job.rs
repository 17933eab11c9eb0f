//! The merges of a batch as planned, each with its children.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::batch::outcome::{JobResult, Status};

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
    /// Its options but t, as arguments of merge.
    pub arguments: Vec<OsString>,
    /// Its children, one per t.
    pub children: Vec<PlannedChild>,
}

/// A child that is to be made, or is there already.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedChild {
    /// Its place between the parents.
    pub t: f64,
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

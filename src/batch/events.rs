//! What the process of a sweep tells the batch: events on stdout, one JSON value a line.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind};

/// What a sweep's process tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// Work begins: bytes of the children.
    Start(u64),
    /// So many more bytes are made.
    Advance(u64),
    /// What is being done now.
    Phase(String),
    /// A warning.
    Warning(String),
    /// The end, with the bytes read from the parents.
    Done {
        /// Bytes read from both parents.
        bytes_read: u64,
    },
    /// The end, and why.
    Failed {
        /// What went wrong.
        failure: Failure,
        /// Whether the parents are at fault, so that the sweep's other children fail as well.
        parents: bool,
    },
}

/// An error as results and records give it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The error's text.
    pub message: String,
    /// Advice.
    pub hint: Option<String>,
    /// The exit code that the merge alone would have given.
    pub exit_code: u8,
}

impl Failure {
    /// A failure of that kind with these words.
    pub(crate) fn new(kind: Kind, message: String, hint: Option<&str>) -> Failure {
        Failure { message, hint: hint.map(str::to_owned), exit_code: kind.exit_code() }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Failure {
        Failure::new(error.kind(), error.to_string(), error.hint())
    }
}

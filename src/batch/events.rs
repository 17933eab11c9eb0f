//! Messages from a sweep's process to the batch, one JSON value per line on its stdout.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind};

/// What a sweep's process reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// Merging starts, with the bytes of all children.
    Start(u64),
    /// Bytes made since the last event of this kind.
    Advance(u64),
    /// What is done now, in words.
    Phase(String),
    /// A warning.
    Warning(String),
    /// The sweep succeeded.
    Done {
        /// Bytes read from both parents.
        bytes_read: u64,
    },
    /// The sweep failed.
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
    /// A failure of this kind with this message.
    pub(crate) fn new(kind: Kind, message: String, hint: Option<&str>) -> Failure {
        Failure { message, hint: hint.map(str::to_owned), exit_code: kind.exit_code() }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Failure {
        Failure::new(error.kind(), error.to_string(), error.hint())
    }
}

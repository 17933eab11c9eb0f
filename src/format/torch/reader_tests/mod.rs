//! Tests of the readers as a whole: hand-made files, files that torch wrote, and broken ones.

mod archives;
mod build;
mod fixtures;
mod leftovers;
mod no_panic;
mod pickles;
mod streams;

use crate::format::{FormatError, ReadOptions, Rule, StateDict, read_state_dict};

/// The state dict of a file's bytes.
fn read_whole(bytes: &[u8]) -> Result<StateDict, FormatError> {
    read_state_dict(&bytes.to_vec(), &ReadOptions::default())
}

/// The same, or the rule that they break.
fn read(bytes: &[u8]) -> Result<StateDict, Rule> {
    read_whole(bytes).map_err(|error| error.rule)
}

/// The rule that a file breaks; `None` where it is read.
fn refusal(bytes: &[u8]) -> Option<Rule> {
    read(bytes).err()
}

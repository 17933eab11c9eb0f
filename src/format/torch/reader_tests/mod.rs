//! Tests of the readers as a whole: hand-made files, files that torch wrote, and broken ones.

mod archives;
mod build;
mod fixtures;
mod leftovers;
mod no_panic;
mod pickles;
mod streams;

use crate::format::{Rule, StateDict, read_state_dict};

/// The state dict of a file's bytes, or the rule they break.
fn read(bytes: &[u8]) -> Result<StateDict, Rule> {
    read_state_dict(&bytes.to_vec()).map_err(|error| error.rule)
}

/// The rule that a file breaks; `None` where it is read.
fn refusal(bytes: &[u8]) -> Option<Rule> {
    read(bytes).err()
}

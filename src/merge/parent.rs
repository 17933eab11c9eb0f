//! Checkpoints that no merge can use, whatever the other parent is.

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::merge::{adapters, quantised, shells};

/// Refuses adapters, quantised weights and shells: interpolated element by element, they mean nothing.
///
/// # Errors
/// [`Kind::Data`](crate::Kind::Data) with what was found and what to do.
pub fn check_parent(checkpoint: &Checkpoint) -> Result<()> {
    refusals(checkpoint).next().map_or(Ok(()), Err)
}

/// Every reason why no merge can use a checkpoint, one of a kind.
pub fn refusals(checkpoint: &Checkpoint) -> impl Iterator<Item = Error> {
    let rooms = [adapters::refusal, quantised::refusal, shells::refusal];
    rooms.into_iter().filter_map(move |room: fn(&Checkpoint) -> Option<Error>| room(checkpoint))
}

//! Refuses checkpoints that can't be merged, whatever the other parent is.

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::merge::parents::{adapters, quantised, shells};

/// Refuses parts of models, adapters, quantised weights and shells: interpolated element by element,
/// they mean nothing.
///
/// # Errors
/// [`Kind::Data`](crate::Kind::Data) with what was found and what to do.
pub fn check_parent(checkpoint: &Checkpoint) -> Result<()> {
    refusals(checkpoint).next().map_or(Ok(()), Err)
}

/// Refuses what can't be copied as a model: parts of models and adapters; quantised weights where their
/// dtype is to change, since their scales would with it.
///
/// # Errors
/// [`Kind::Data`](crate::Kind::Data) with what was found and what to do.
pub(crate) fn check_copied(model: &Checkpoint, changes: bool) -> Result<()> {
    let quantised = || changes.then(|| quantised::refusal(model)).flatten();
    let refusal = of_part(model).or_else(|| adapters::refusal(model)).or_else(quantised);
    refusal.map_or(Ok(()), Err)
}

/// Every reason why a checkpoint can't be merged, at most one of each kind.
pub fn refusals(checkpoint: &Checkpoint) -> impl Iterator<Item = Error> {
    let checks = [of_part, adapters::refusal, quantised::refusal, shells::refusal];
    checks.into_iter().filter_map(move |check: fn(&Checkpoint) -> Option<Error>| check(checkpoint))
}

fn of_part(checkpoint: &Checkpoint) -> Option<Error> {
    checkpoint.part.as_ref().map(|part| part.refusal(&checkpoint.path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Parts;
    use crate::error::Kind;
    use crate::merge::headers::llama;

    #[test]
    fn a_part_of_a_model_is_refused_whatever_it_holds() {
        let mut parent = llama(64).open();
        assert!(check_parent(&parent).is_ok());
        parent.part = Parts::among(["consolidated.01.pth"].into_iter());
        let error = check_parent(&parent).unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        assert!(error.to_string().starts_with("this is a part of a model, not a model: parent"));
    }
}

//! Errors of a tensor, completed with the parent that is at fault.

use crate::engine::task::Task;
use crate::engine::worker::Worker;
use crate::error::{Error, Kind};
use crate::format::Rule;

/// Both passes read the same bytes, or a parent changed in between.
pub(crate) fn changed(task: &Task<'_>) -> Error {
    let path = task.primary.as_ref().or(task.secondary.as_ref()).map(|source| source.path());
    let error = Error::new(Kind::TryAgain, "a parent changed while it was read")
        .tensor(&task.plan.name)
        .expected("the same bytes twice", "others the second time");
    match path {
        Some(path) => error.file(path),
        None => error,
    }
}

/// Puts file, count and place into the error of a tensor that holds NaN or Inf, reading it again.
pub(crate) fn explain(worker: &mut Worker<'_>, task: &Task<'_>, error: Error) -> Error {
    if error.rule() != Some(Rule::NonFinite) {
        return error;
    }
    for (lane, source) in task.sides().into_iter().enumerate() {
        let Some(source) = source else { continue };
        match worker.count_side(task, lane) {
            Ok((0, _)) => {}
            Ok((count, first)) => {
                let first = first.unwrap_or(0);
                return error
                    .file(source.path())
                    .expected(
                        "finite values",
                        format!("{count} NaN or Inf, the first at element {first}"),
                    )
                    .with_hint("that parent is broken; --allow-nonfinite merges it all the same");
            }
            Err(error) => return error,
        }
    }
    error.expected("finite values", "sums beyond float64")
}

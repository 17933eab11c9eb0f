//! Errors about a tensor's data. The one for NaN and Inf reads the tensor again to say where they
//! are.

use crate::engine::task::tensor_task::Task;
use crate::engine::task::worker::Worker;
use crate::error::{Error, Kind};
use crate::format::Rule;

/// A parent gave other bytes the second time.
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

/// Adds file, count and place to [`nonfinite_error`], reading the tensor again.
pub(crate) fn explain(worker: &mut dyn Worker, task: &Task<'_>, error: Error) -> Error {
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

/// A parent of this task holds NaN or Inf; [`explain`] adds where.
pub(crate) fn nonfinite_error(task: &Task<'_>) -> Error {
    Error::new(Kind::Data, "a parent holds NaN or Inf")
        .tensor(&task.plan.name)
        .with_rule(Rule::NonFinite)
}

/// `count` elements of a piece overflow; `first` is the flat index of the first of them.
pub(crate) fn overflow_error(task: &Task<'_>, count: u64, first: u64) -> Error {
    Error::new(Kind::Data, "the child overflows its dtype")
        .tensor(&task.plan.name)
        .expected(
            format!("values within {}", task.plan.dtype),
            format!("{count} beyond its largest in one piece, the first at element {first}"),
        )
        .with_hint("give --dtype bfloat16 or float32, which reach further, or --allow-nonfinite")
}

//! Adds advice to clap's refusals where a mistake is common.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Adds a tip where the output was named without `-o`.
pub(crate) fn explained(mut error: clap::Error, arguments: &[std::ffi::OsString]) -> clap::Error {
    let merges = arguments.get(1).is_some_and(|command| command == "merge" || command == "plan");
    let Some(ContextValue::String(extra)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    if error.kind() == ErrorKind::UnknownArgument && merges && !extra.starts_with('-') {
        let tip =
            format!("a merge has two parents; name the child's directory with -o: `-o {extra}`");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

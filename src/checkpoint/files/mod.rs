//! Reads files: weights by position, small files whole. Resolves paths.

pub(crate) mod paths;
pub(crate) mod read_ahead;
pub(crate) mod small_file;
pub(crate) mod source;

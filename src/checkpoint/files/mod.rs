//! Reading of files: weights by position, small files whole; and operations on paths.

pub(crate) mod paths;
pub(crate) mod read_ahead;
pub(crate) mod small_file;
pub(crate) mod source;

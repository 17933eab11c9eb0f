//! Reads files: weights by position, small ones as a whole; and what paths say.

pub(crate) mod paths;
pub(crate) mod read_ahead;
pub(crate) mod small_file;
pub(crate) mod source;

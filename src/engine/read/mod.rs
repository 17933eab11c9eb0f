//! Reads the parents' tensors by position, and fills in missing vocabulary rows.

pub(crate) mod added_rows;
pub(crate) mod edge_rows;
pub(crate) mod interleave;
pub(crate) mod slot;
pub(crate) mod source;

//! The parents' side: tensors read by position, rows that a short vocabulary lacks added on the way.

pub(crate) mod added_rows;
pub(crate) mod edge_rows;
pub(crate) mod interleave;
pub(crate) mod slot;
pub(crate) mod source;

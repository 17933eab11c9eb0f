//! The parents' side: tensors read by position, missing vocabulary rows added on the way.

pub(crate) mod added_rows;
pub(crate) mod edge_rows;
pub(crate) mod interleave;
pub(crate) mod slot;
pub(crate) mod source;

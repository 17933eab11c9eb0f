//! Reads the parents' tensors by position, puts vocabulary rows in their places, and fills in missing ones.

pub(crate) mod added_rows;
pub(crate) mod edge_rows;
pub(crate) mod mapped_rows;
pub(crate) mod slot;
pub(crate) mod source;

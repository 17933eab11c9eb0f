//! Wraps what the engine uses of libtorch: calls with this crate's errors, shared memory,
//! operations on a piece.

pub(crate) mod buffer;
pub(crate) mod calls;
pub(crate) mod ops;

//! What the engine asks of libtorch: calls with this crate's errors, shared memory, operations.

pub(crate) mod buffer;
pub(crate) mod calls;
pub(crate) mod ops;

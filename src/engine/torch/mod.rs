//! What the engine asks of libtorch: calls with this crate's errors, memory that both see, operations.

pub(crate) mod buffer;
pub(crate) mod calls;
pub(crate) mod ops;

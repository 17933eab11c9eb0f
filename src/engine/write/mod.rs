//! The child's side: bytes made in blocks, written and flushed by threads of their own.

pub(crate) mod block;
pub(crate) mod children;
pub(crate) mod flusher;
pub(crate) mod queue;
pub(crate) mod span;

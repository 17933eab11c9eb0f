//! Writes the children: workers fill blocks, and threads of their own write and flush them.

pub(crate) mod block;
pub(crate) mod children;
pub(crate) mod flusher;
pub(crate) mod queue;
pub(crate) mod span;

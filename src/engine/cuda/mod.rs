//! Opens CUDA at run time, so that the same program runs where there is none.

pub(crate) mod driver;
pub(crate) mod errors;
pub(crate) mod library;
pub(crate) mod opening;
pub(crate) mod runtime;

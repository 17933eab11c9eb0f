//! CUDA, opened at run time: the same program runs where there is none.

mod driver;
mod errors;
mod library;
mod opening;
mod runtime;

pub(crate) use driver::DriverDevice;
pub(crate) use opening::{look, open, version_text};
pub(crate) use runtime::{Runtime, StreamGuard};

//! Runs the two passes on a device that has memory of its own: CUDA, or in tests the CPU in its
//! place.
//!
//! A chunk of both parents is read into page-locked host memory, goes up, is summed and blended in
//! float64, and the child's chunk comes down. A tensor that fits a worker's share of the device's
//! memory stays there between the passes and so goes up once.

pub(crate) mod check;
pub(crate) mod host;
pub(crate) mod kernel;
pub(crate) mod memory;
pub(crate) mod passes;
pub(crate) mod share;
pub(crate) mod trouble;
pub(crate) mod worker;

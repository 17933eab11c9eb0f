//! The engine on a device that has memory of its own: CUDA, or in tests the CPU in its place.
//!
//! A chunk of both parents is read into page-locked host memory, goes up, is summed and blended in
//! float64, and the child's chunk comes down. A tensor that fits a worker's share of the device's
//! memory stays there between the passes and so goes up once.

mod check;
mod kernel;
mod memory;
mod passes;
mod share;
mod staging;
mod trouble;
mod worker;

pub(crate) use share::Share;
pub(crate) use worker::DeviceWorker;

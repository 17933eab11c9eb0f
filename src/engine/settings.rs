//! The settings that a plan is run with: threads, memory and devices.

use crate::engine::devices::ComputeDevice;
use crate::error::Error;

/// How fast and in how much memory a plan is run. Of these only whether there are devices changes the
/// child, in its last places.
pub struct Settings<'s> {
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Bytes that the workers together may use to keep tensors between the two passes.
    pub memory_bytes: u64,
    /// The devices that share the work; none means the CPU.
    pub devices: &'s [ComputeDevice],
    /// Bytes that the workers of each device may use of its memory; `None` is half of what is free.
    pub device_bytes: Option<u64>,
    /// Merges that may use each device at once, this one with them: what is free is divided.
    pub device_sharers: usize,
    /// Asked between spans: an error to stop with (interrupts).
    pub interrupted: &'s (dyn Fn() -> Option<Error> + Sync),
}

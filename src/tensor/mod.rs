//! Floor 0: the types that every floor shares. No I/O, no torch.

#[cfg(test)]
mod chance;
mod crc;
mod dtype;
mod json_path;
mod layout;
mod units;

#[cfg(test)]
pub(crate) use chance::chance;
pub use crc::{Crc, RunningCrc, crc32};
pub use dtype::DType;
pub use json_path::JsonPath;
pub use layout::{Layout, numel};
pub use units::{counted, cut, escape, escape_up_to, human_bytes, human_count, listed};

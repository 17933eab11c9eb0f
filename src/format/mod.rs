//! Floor 1: one file. Bytes in, records out, and back.
//!
//! Nothing here opens a file or knows a path: readers take a [`ReadAt`], writers return bytes and
//! offsets. Every number that comes from a file is checked before use, memory is bounded by the
//! file's true size, and no pickle code is ever run.

mod bytes;
mod error;
mod inflate;
mod legacy;
mod load;
mod pickle;
mod read_at;
mod rebuild;
mod sniff;
mod state_dict;
mod zip;

#[cfg(test)]
mod reader_tests;

pub use error::{FormatError, Rule};
pub use inflate::inflate_exact;
pub use load::read_state_dict;
pub use read_at::ReadAt;
pub use state_dict::{ByteOrder, Container, Encoding, StateDict, Storage, Tensor};

//! Reads safetensors: eight bytes of length, a JSON header, then the tensors' bytes.
//!
//! ```text
//! u64 n, little-endian | n bytes of JSON, padded with blanks | data
//! {"__metadata__": {"format": "pt"}, "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
//! ```
//!
//! Offsets count from the first byte behind the header. Elements are little-endian and row-major; every
//! byte belongs to one tensor, and there are no checksums.
//!
//! Source: the crate `safetensors` 0.8 and the README of its repository ("Format").

pub(crate) mod dtypes;
pub(crate) mod header;
pub(crate) mod layout;
pub(crate) mod read;
#[cfg(test)]
mod tests;

//! Reads torch's own files, the zip archive of today and the stream of pickles of torch before 1.6,
//! and lays out the former.

pub(crate) mod candidates;
pub(crate) mod collect;
pub(crate) mod leftovers;
pub(crate) mod legacy;
pub(crate) mod load;
pub(crate) mod pickle;
pub(crate) mod rebuild;
pub(crate) mod shard_layout;
pub(crate) mod tensor_bytes;
pub(crate) mod zip;

#[cfg(test)]
mod reader_tests;

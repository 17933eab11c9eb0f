//! Interprets the names of tensors, and matches those of the two parents.

pub(crate) mod buffers;
pub(crate) mod embeddings;
pub(crate) mod heads;
pub(crate) mod matching;
#[cfg(test)]
mod matching_tests;
pub(crate) mod merged_buffers;
pub(crate) mod numbers;
pub(crate) mod prefix;
pub(crate) mod spellings;
pub(crate) mod wrappers;

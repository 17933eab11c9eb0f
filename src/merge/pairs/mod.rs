//! Which tensors of the two parents become one of the child's, and how much may stay alone.

pub(crate) mod child_order;
pub(crate) mod depth;
pub(crate) mod mismatch;
pub(crate) mod pairing;
#[cfg(test)]
mod pairing_tests;
pub(crate) mod unpaired;

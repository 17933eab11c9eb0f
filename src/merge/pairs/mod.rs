//! Pairs the tensors of the two parents, and refuses parents of which too much has no partner.

pub(crate) mod child_order;
pub(crate) mod depth;
pub(crate) mod mismatch;
pub(crate) mod pairing;
#[cfg(test)]
mod pairing_tests;
pub(crate) mod unpaired;

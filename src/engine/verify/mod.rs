//! Checks for `verify` whether a checkpoint is whole, finite and plausible, to its last byte.

pub(crate) mod check;
pub(crate) mod gauge;
pub(crate) mod region;
pub(crate) mod suspects;

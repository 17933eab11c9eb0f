//! Runs the two passes over a tensor on the CPU, piece by piece.

pub(crate) mod kernel;
pub(crate) mod narrow;
pub(crate) mod piece;
pub(crate) mod worker;

//! Decides t of each tensor of each child.

pub(crate) mod gradient;
pub(crate) mod layers;
pub(crate) mod schedule;
pub(crate) mod slices;

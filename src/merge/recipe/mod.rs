//! How far each tensor of each child lies between the parents.

pub(crate) mod gradient;
pub(crate) mod layers;
pub(crate) mod schedule;

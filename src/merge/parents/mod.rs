//! Checks one parent by itself: whether it can be merged at all, and which of its weights stand
//! out.

pub(crate) mod adapters;
pub(crate) mod norms;
pub(crate) mod quantised;
pub(crate) mod refusals;
pub(crate) mod shells;

//! Computes what `find` shows: the figures of each model, and which models fit each other.

pub(crate) mod facts;
pub(crate) mod groups;
pub(crate) mod sizes;
pub(crate) mod words;

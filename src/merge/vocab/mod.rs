//! Counts the rows of the vocabularies, and decides where the shorter one is extended.

pub(crate) mod axis;
pub(crate) mod edges;
pub(crate) mod extension;
pub(crate) mod rows;

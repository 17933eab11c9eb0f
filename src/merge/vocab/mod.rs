//! The vocabularies: their rows, and where the shorter one is extended.

pub(crate) mod axis;
pub(crate) mod edges;
pub(crate) mod extension;
pub(crate) mod rows;

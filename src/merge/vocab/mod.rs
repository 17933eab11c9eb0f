//! Counts the rows of the vocabularies, compares their words, and decides where the shorter one is
//! extended.

pub(crate) mod axis;
pub(crate) mod by_word;
pub(crate) mod comparison;
pub(crate) mod edges;
pub(crate) mod extension;
pub(crate) mod row_map;
pub(crate) mod rows;

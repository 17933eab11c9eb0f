//! Recipes on the command line: what one says, and merges that are made by one.

pub(crate) mod asked;
pub(crate) mod show;

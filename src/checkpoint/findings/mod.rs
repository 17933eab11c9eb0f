//! The check of a checkpoint: everything that is wrong with it, and its words.

pub(crate) mod finding;
pub(crate) mod shards;
pub(crate) mod summary;
pub(crate) mod survey;

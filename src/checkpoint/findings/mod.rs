//! Checks a checkpoint by its headers, and collects everything that is wrong with it.

pub(crate) mod finding;
pub(crate) mod shards;
pub(crate) mod summary;
pub(crate) mod survey;

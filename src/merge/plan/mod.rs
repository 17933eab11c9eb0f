//! The plan of a merge: every decision put together, before a byte is written.

pub(crate) mod integers;
pub(crate) mod merge_plan;
pub(crate) mod planned;
pub(crate) mod storages;
#[cfg(test)]
mod tests;

//! Makes the plan of a merge: puts every decision together, before a byte is written.

pub(crate) mod copies;
pub(crate) mod integers;
pub(crate) mod merge_plan;
pub(crate) mod planned;
pub(crate) mod schedules;
pub(crate) mod storages;
#[cfg(test)]
mod tests;
pub(crate) mod untied;

//! A checkpoint checked as a whole: everything that is wrong with it, in words.

pub(crate) mod finding;
pub(crate) mod index;
pub(crate) mod summary;
pub(crate) mod survey;

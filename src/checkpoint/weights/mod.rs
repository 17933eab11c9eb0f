//! Which files of a directory are a model's weights, decided by their names.

pub(crate) mod choice;
pub(crate) mod directory;
pub(crate) mod kinds;
pub(crate) mod names;
pub(crate) mod parts;

//! Decides by their names which files of a directory are a model's weights.

pub(crate) mod choice;
pub(crate) mod directory;
pub(crate) mod kinds;
pub(crate) mod names;
pub(crate) mod parts;

//! Puts a child at its output: checks of the output, the work directory, the journal, the final
//! rename.

pub(crate) mod check;
pub(crate) mod directory;
pub(crate) mod existing;
pub(crate) mod folders;
pub(crate) mod journal;
pub(crate) mod made_dirs;
pub(crate) mod mount_point;
pub(crate) mod staging;
pub(crate) mod swap;
pub(crate) mod work_dir;

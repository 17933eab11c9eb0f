//! The child's place on disk: checked, taken by a work directory, journaled, and swapped in at the end.

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

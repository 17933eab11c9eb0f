//! The child: which tensor goes to which file and where, its weight files and what stands beside them.

pub(crate) mod layout;
pub(crate) mod side_files;
pub mod split;
pub(crate) mod weight_files;
pub(crate) mod writer;

//! Makes a child's files: splits its tensors into weight files, lays these out and writes them, and
//! copies the files beside them.

pub(crate) mod copied_files;
pub(crate) mod layout;
pub mod split;
pub(crate) mod weight_files;
pub(crate) mod writer;

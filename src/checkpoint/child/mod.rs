//! The child: the split into files, their layout, the writer of weights, and the side files.

pub(crate) mod layout;
pub(crate) mod side_files;
pub mod split;
pub(crate) mod weight_files;
pub(crate) mod writer;

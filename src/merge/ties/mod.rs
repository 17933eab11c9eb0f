//! Finds tied tensors: output heads that are the embedding, however a parent stores them, and all
//! other names of one tensor.

#[cfg(test)]
mod heads_tests;
pub(crate) mod left_out;
pub(crate) mod output_heads;
pub(crate) mod parents;
mod same;
pub(crate) mod share;
#[cfg(test)]
mod tests;

//! Names that are one tensor: output heads that are the embedding, however a parent stores them, and
//! all else that a parent stores as one.

#[cfg(test)]
mod heads_tests;
pub(crate) mod output_heads;
pub(crate) mod parents;
mod same;
pub(crate) mod share;
#[cfg(test)]
mod tests;

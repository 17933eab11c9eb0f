//! What two configs say of the same shapes, and whether a merge then means anything.

pub(crate) mod differences;
mod families;
mod keys;
mod rope;
#[cfg(test)]
mod tests;

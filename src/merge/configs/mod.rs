//! Compares the parents' configs, and refuses a merge where they give equal shapes another meaning.

pub(crate) mod differences;
mod families;
mod keys;
mod rope;
#[cfg(test)]
mod tests;

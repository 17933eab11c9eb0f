//! Files that name one merge: mergekit's recipes, as far as two models and slerp or linear go.

mod fields;
mod flags;
mod models;
mod parameters;
mod read;
#[cfg(test)]
mod tests;
mod yaml;

pub use read::Recipe;

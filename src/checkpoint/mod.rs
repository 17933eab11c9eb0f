//! Floor 2: a model directory.

pub mod config;
pub mod side_file;
pub mod split;
mod token_ids;
pub mod tokenizer;

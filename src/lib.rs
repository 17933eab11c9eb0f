//! Merging of language-model checkpoints by spherical linear interpolation.
//!
//! The floors, each of which may use those below it and never one above:
//!
//! | floor | module | its one job |
//! |---|---|---|
//! | 7 | `cli` | arguments, bars, exit codes |
//! | 6 | `batch` | many merges from one manifest |
//! | 4 | `engine` | runs a plan: workers, reading, merging, writing. The only floor that names torch |
//! | 3 | `merge` | the decisions: options, pairs, vocabulary, plan. No I/O |
//! | 2 | [`checkpoint`] | a model directory: index, shards, config.json, tokenizer files |
//! | 1 | [`mod@format`] | one file: pickle, zip, legacy; reading and writing |
//! | 0 | [`tensor`], [`error`] | words that all floors share |

#[cfg(feature = "torch")]
pub mod batch;
pub mod checkpoint;
#[cfg(feature = "torch")]
pub mod cli;
#[cfg(feature = "torch")]
pub mod engine;
pub mod error;
pub mod format;
pub mod merge;
pub mod tensor;

pub use error::{Error, Kind, Result};

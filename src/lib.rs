//! Merges two language-model checkpoints into one by spherical linear interpolation (SLERP).
//!
//! The parents are models as HuggingFace transformers saves them, in `.bin` files. Opening one reads
//! headers only and runs nothing that is in them; a [plan](merge::MergePlan) is made of both before a
//! byte is written; the engine then reads every tensor once or twice, merges it with libtorch and
//! writes the files that `save_pretrained` would have written.
//!
//! ```
//! use std::path::Path;
//!
//! use llm_slerp_merge::checkpoint::Checkpoint;
//! use llm_slerp_merge::merge::{Child, MergeOptions, plan};
//!
//! # fn main() -> llm_slerp_merge::Result<()> {
//! let models = Path::new("tests/data/llama");
//! let primary = Checkpoint::open(&models.join("primary"))?;
//! let secondary = Checkpoint::open(&models.join("secondary"))?;
//! let options = MergeOptions { children: vec![Child::at(0.3)], ..MergeOptions::default() };
//! let plan = plan(&primary, &secondary, &options)?;
//! for storage in &plan.storages {
//!     println!("{} {} {:?} {:?}", storage.name, storage.dtype, storage.shape, storage.t);
//! }
//! # assert_eq!(plan.storages[0].name, "model.embed_tokens.weight");
//! # Ok(())
//! # }
//! ```
//!
//! Each module is a floor, which may use those below it and never one above:
//!
//! | floor | module | its one job |
//! |---|---|---|
//! | 7 | `cli` | arguments, bars, exit codes |
//! | 6 | `batch` | many merges from one manifest |
//! | 5 | [`recipe`] | files that name one merge: mergekit's recipes |
//! | 4 | `engine` | runs a plan: workers, reading, merging, writing. The only floor that calls libtorch |
//! | 3 | `merge` | the decisions: options, pairs, vocabulary, plan. No I/O |
//! | 2 | [`checkpoint`] | a model directory: index, shards, config.json, tokenizer files. All access to model files |
//! | 1 | [`mod@format`] | one file: pickle, zip, legacy; reading and writing |
//! | 0 | [`tensor`], [`error`] | types that all floors share |

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
pub mod recipe;
pub mod tensor;

pub use error::{Error, Kind, Result};

//! Floor 3: the mathematics and the decisions. No I/O, no torch.

mod adapters;
mod axis;
mod buffers;
mod child_order;
#[path = "configs/differences.rs"]
mod configs;
mod depth;
mod edges;
mod embeddings;
mod extension;
mod facts;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod groups;
#[cfg(test)]
mod headers;
mod heads;
mod integers;
mod merged_buffers;
mod mismatch;
mod names;
#[cfg(test)]
mod names_tests;
mod norms;
mod numbers;
mod options;
mod pair;
mod pairing;
#[cfg(test)]
mod pairing_tests;
mod parent;
mod plan;
#[cfg(test)]
mod plan_tests;
mod planned;
mod prefix;
mod quantised;
mod shells;
mod sizes;
mod slerp;
mod spellings;
mod storages;
mod ties;
mod unpaired;
mod vocab;
mod warning;
mod wrappers;

pub use buffers::KnownBuffer;
pub use edges::{EdgeRows, Edges};
pub use embeddings::embedding;
pub use extension::Extension;
pub use facts::ModelFacts;
pub use groups::{Fits, fits, groups};
pub use norms::{Outlier, is_matrix, outliers};
pub use options::{Extend, MergeOptions, Method, Missing};
pub use parent::{check_parent, refusals};
pub use plan::{MergePlan, plan};
pub use planned::{Action, PlannedShard, PlannedStorage, PlannedTensor};
pub use slerp::{COS_THRESHOLD, Coefficients, NORM_THRESHOLD, Path, Sums, coefficients};
pub use ties::output_heads::{stored_apart, unsure};
pub use vocab::{Vocab, vocab_rows};
pub use warning::Warning;

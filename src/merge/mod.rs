//! Floor 3: the mathematics and the decisions. No I/O, no torch.

mod buffers;
mod child_order;
mod configs;
mod depth;
mod edges;
mod facts;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod groups;
#[cfg(test)]
mod headers;
mod heads;
mod mismatch;
mod names;
mod options;
mod pair;
mod pairing;
#[cfg(test)]
mod pairing_tests;
mod parent;
mod plan;
mod prefix;
mod slerp;
mod spellings;
mod ties;
mod unpaired;
mod vocab;
mod warning;
mod wrappers;

pub use buffers::KnownBuffer;
pub use edges::{EdgeRows, Edges};
pub use facts::ModelFacts;
pub use groups::{fits, groups};
pub use options::{Extend, MergeOptions, Method, Missing};
pub use pair::Extension;
pub use parent::check_parent;
pub use plan::{Action, MergePlan, PlannedShard, PlannedStorage, PlannedTensor, plan};
pub use slerp::{COS_THRESHOLD, Coefficients, NORM_THRESHOLD, Path, Sums, coefficients};
pub use ties::{differing_heads, unsure};
pub use vocab::{Vocab, embedding, vocab_rows};
pub use warning::Warning;

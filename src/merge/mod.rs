//! Floor 3: the mathematics and the decisions. No I/O, no torch.

mod buffers;
mod facts;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod groups;
#[cfg(test)]
mod headers;
mod heads;
mod names;
#[cfg(test)]
mod names_tests;
mod options;
mod pairing;
#[cfg(test)]
mod pairing_tests;
mod parent;
mod plan;
mod prefix;
mod slerp;
mod spellings;
mod unpaired;
mod vocab;
mod warning;
mod wrappers;

pub use buffers::KnownBuffer;
pub use facts::ModelFacts;
pub use groups::{fits, groups};
pub use options::{Extend, MergeOptions, Method, Missing};
pub use pairing::Extension;
pub use parent::check_parent;
pub use plan::{Action, MergePlan, PlannedShard, PlannedStorage, PlannedTensor, plan};
pub use slerp::{COS_THRESHOLD, Coefficients, NORM_THRESHOLD, Path, Sums, coefficients};
pub use vocab::{Vocab, embedding, vocab_rows};
pub use warning::Warning;

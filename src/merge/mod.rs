//! Floor 3: the mathematics and the decisions. No I/O, no torch.

mod child_order;
mod facts;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
#[cfg(test)]
mod headers;
mod merged_buffers;
mod options;
mod pairing;
mod parent;
mod plan;
mod slerp;
mod vocab;
mod warning;

pub use facts::{ModelFacts, groups};
pub use options::{Extend, MergeOptions, Method, Missing};
pub use pairing::Extension;
pub use parent::check_parent;
pub use plan::{Action, MergePlan, PlannedShard, PlannedStorage, PlannedTensor, plan};
pub use slerp::{COS_THRESHOLD, Coefficients, NORM_THRESHOLD, Path, Sums, coefficients};
pub use vocab::{Vocab, embedding, vocab_rows};
pub use warning::Warning;

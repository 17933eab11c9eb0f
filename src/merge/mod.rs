//! Floor 3: the mathematics and the decisions. No I/O, no torch.

mod adapters;
mod facts;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
#[cfg(test)]
mod headers;
mod heads;
mod norms;
mod options;
mod pairing;
mod parent;
mod plan;
mod quantised;
mod shells;
mod slerp;
mod vocab;
mod warning;

pub use facts::{ModelFacts, groups};
pub use heads::stored_apart;
pub use norms::{Outlier, is_matrix, outliers};
pub use options::{Extend, MergeOptions, Method, Missing};
pub use pairing::Extension;
pub use parent::{check_parent, refusals};
pub use plan::{Action, MergePlan, PlannedShard, PlannedStorage, PlannedTensor, plan};
pub use slerp::{COS_THRESHOLD, Coefficients, NORM_THRESHOLD, Path, Sums, coefficients};
pub use vocab::{Vocab, embedding, vocab_rows};
pub use warning::Warning;

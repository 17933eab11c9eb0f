//! Floor 3: decides what a merge does. Pairs tensors, checks parents, plans the child, computes the
//! coefficients. No I/O, no torch.

mod configs;
mod find;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
#[cfg(test)]
mod headers;
mod names;
mod options;
mod pair;
mod pairs;
mod parents;
mod plan;
mod recipe;
mod slerp;
mod ties;
mod vocab;
mod warning;

pub use find::facts::ModelFacts;
pub use find::groups::{Fits, fits, groups};
pub use find::words::clashes;
pub use names::buffers::KnownBuffer;
pub use names::embeddings::embedding;
pub use options::{Extend, MergeOptions, Method, Missing, VocabMode};
pub use parents::norms::{Outlier, is_matrix, outliers};
pub use parents::refusals::{check_parent, refusals};
pub use plan::merge_plan::{MergePlan, conversion, plan};
pub use plan::planned::{Action, Mapped, PlannedShard, PlannedStorage, PlannedTensor};
pub use recipe::gradient::{Gradient, parse_t};
pub use recipe::schedule::{Child, Filter, Schedule};
pub use recipe::slices::{Slice, cut, depth, is_whole};
pub use slerp::{COS_THRESHOLD, Coefficients, NORM_THRESHOLD, Path, Sums, coefficients};
pub use ties::output_heads::{stored_apart, unsure};
pub use vocab::by_word::{ByWord, WordRows};
pub use vocab::comparison::{Comparison, Relation};
pub use vocab::edges::{EdgeRows, Edges};
pub use vocab::extension::Extension;
pub use vocab::row_map::{RowMap, RowRun};
pub use vocab::rows::{Vocab, vocab_rows};
pub use warning::Warning;

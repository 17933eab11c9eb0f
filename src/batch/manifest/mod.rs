//! Reads manifests, and describes them by a JSON Schema.

mod document;
mod fields;
mod options;
mod schema;
mod template;

pub use document::{Entry, Manifest};
pub use options::{OptionKind, OptionSpec};
pub use schema::schema;

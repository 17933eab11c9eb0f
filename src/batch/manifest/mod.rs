//! What a manifest may hold, and the merges that it names.

mod document;
mod options;
mod schema;
mod template;

pub use document::{Entry, Manifest};
pub use options::{OptionKind, OptionSpec};
pub use schema::schema;

//! The zip archive around a torch file's records.

mod emit;
mod emit_record;
mod folder;
mod serialization_id;

pub(crate) use emit::ArchiveLayout;
pub use emit::{Piece, StorageSum};
pub use folder::top_folder;
pub(crate) use serialization_id::MAX_RECORDS;

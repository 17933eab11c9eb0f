//! The zip archive around a torch file's records.

mod emit;
mod emit_record;
mod folder;
mod serialization_id;

pub use emit::{ArchiveLayout, Piece, StorageSum};
pub use folder::top_folder;
pub use serialization_id::MAX_RECORDS;

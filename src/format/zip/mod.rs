//! Zip archives as torch writes them, and as people re-zip them: reading and writing.

mod archive;
mod directory;
mod emit;
mod emit_record;
mod end;
mod entry;
mod folder;
mod locals;
mod names;
mod record;
mod records;
mod serialization_id;

pub(crate) use archive::{Archive, missing};
pub(crate) use emit::ArchiveLayout;
pub use emit::{Piece, StorageSum};
pub use folder::top_folder;
pub use records::{ArchiveRecord, archive_records};
pub(crate) use serialization_id::MAX_RECORDS;

//! Reads zip archives as torch writes them, and as people re-zip them; `write` lays them out.

pub(crate) mod archive;
pub(crate) mod directory;
pub(crate) mod end_record;
pub(crate) mod entry;
pub(crate) mod entry_name;
pub(crate) mod headers;
pub(crate) mod local_headers;
pub(crate) mod records;
pub(crate) mod write;

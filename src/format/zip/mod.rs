//! Zip archives as torch writes them, and as people re-zip them: reading.

mod archive;
mod directory;
mod end;
mod locals;
mod names;
mod record;

pub(crate) use archive::{Archive, missing};

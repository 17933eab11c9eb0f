//! Lays out a zip archive, byte for byte as torch does.

pub(crate) mod folder;
pub(crate) mod layout;
pub(crate) mod record;
pub(crate) mod serialization_id;

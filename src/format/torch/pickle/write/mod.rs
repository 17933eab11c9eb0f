//! Writes `data.pkl`, byte for byte as torch does.

pub(crate) mod pickler;
pub(crate) mod storages;

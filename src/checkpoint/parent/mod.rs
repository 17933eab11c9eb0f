//! Finds a parent, opens it by its headers, and refuses one that contradicts itself.

pub(crate) mod checkpoint;
pub(crate) mod discover;
pub(crate) mod hub;
pub(crate) mod key;
pub(crate) mod leftovers;
pub(crate) mod open;
pub(crate) mod shards;
pub(crate) mod strictness;
pub(crate) mod twins;

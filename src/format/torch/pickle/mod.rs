//! Reads pickles as data and runs nothing in them; `write` makes `data.pkl`.

pub(crate) mod blocks;
pub(crate) mod budget;
pub(crate) mod machine;
pub(crate) mod memory;
pub(crate) mod names;
pub(crate) mod objects;
pub(crate) mod opaque_values;
pub(crate) mod opcode;
pub(crate) mod stack;
pub(crate) mod text;
pub(crate) mod value;
pub(crate) mod write;

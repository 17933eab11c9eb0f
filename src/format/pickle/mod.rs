//! The pickle `data.pkl` of a torch file.

mod emit;
mod emit_storages;

pub use emit::EmitTensor;
pub(crate) use emit::data_pkl;

//! The pickle `data.pkl` of a torch file.

mod emit;

pub use emit::{DataPkl, EmitTensor, data_pkl};

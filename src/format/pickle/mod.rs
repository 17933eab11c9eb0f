//! Pickles as torch writes them: reading without running, and writing `data.pkl`.

mod blocks;
mod budget;
mod emit;
mod emit_storages;
mod globals;
mod inert;
mod machine;
mod memory;
mod objects;
mod opaque;
mod opaque_values;
mod opcode;
mod runs_code;
mod stack;
mod text;
mod value;

pub(crate) use budget::Room;
pub(crate) use emit::data_pkl;
pub use emit_storages::EmitTensor;
pub(crate) use globals::{Global, Rebuild, StorageClass};
pub(crate) use machine::{Refusal, read_pickle};
pub use opaque::{OpaqueName, OpaqueNames};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use stack::SHARED_VALUES;
pub(crate) use stack::{MAX_PICKLE_BYTES, Source};
pub(crate) use value::{Pickle, Ref, Value};

//! Floor 1: one file. Bytes in, records out, and back.
//!
//! Nothing here opens a file or knows a path: readers take a [`ReadAt`], writers return bytes and
//! offsets. Every number that comes from a file is checked before use, memory is bounded by the
//! file's true size, and no pickle code is ever run.

mod bytes;
mod emit_error;
mod error;
mod file_layout;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod index_json;
mod inflate;
pub(crate) mod json;
mod load;
mod read_at;
mod safetensors;
mod size;
mod sniff;
mod state_dict;
mod torch;

pub use emit_error::EmitError;
pub use error::{FormatError, Rule};
pub use file_layout::{FileLayout, WeightFormat};
pub use index_json::{Index, MAX_INDEX_BYTES, index_text};
pub use inflate::{inflate_exact, inflate_pieces};
pub use load::read_state_dict;
pub use read_at::ReadAt;
pub use size::parse_size;
pub use sniff::looks_like_torch;
pub use state_dict::{ByteOrder, Container, Encoding, OpaqueValue, StateDict, Storage, Tensor};
pub use torch::collect::ReadOptions;
pub use torch::pickle::names::opaque::{OpaqueName, OpaqueNames};
pub use torch::pickle::write::storages::EmitTensor;
pub use torch::shard_layout::ShardLayout;
pub use torch::zip::records::{ArchiveRecord, archive_records};
pub use torch::zip::write::folder::top_folder;
pub use torch::zip::write::layout::{Piece, StorageSum};

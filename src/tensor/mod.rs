//! Floor 0: the words that every floor shares. No I/O, no torch.

mod dtype;
mod json_path;
mod layout;
mod units;

pub use dtype::DType;
pub use json_path::JsonPath;
pub use layout::{Layout, numel};
pub use units::{cut, escape, escape_up_to, human_bytes, human_count};

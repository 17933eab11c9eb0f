//! Reads the state dict of one file, whatever its container.

use crate::format::error::{FormatError, Rule};
use crate::format::read_at::ReadAt;
use crate::format::safetensors;
use crate::format::sniff::{Kind, sniff};
use crate::format::state_dict::StateDict;
use crate::format::torch::collect::ReadOptions;
use crate::format::torch::legacy;
use crate::format::torch::load::read_zip;
use crate::tensor::escape;

/// Reads the state dict of one checkpoint file: headers and pickles only, no tensor data.
///
/// Everything is checked that later floors rely on (see [`StateDict`]); a pickle is read as data and
/// nothing in it is called. Memory grows with the pickle and the zip directory, or with the header.
///
/// # Errors
/// A [`FormatError`] whose [`Rule`] says what the file breaks; [`Rule::NoEntry`] where it has no dict
/// under the user's key.
pub fn read_state_dict(
    source: &dyn ReadAt,
    options: &ReadOptions,
) -> Result<StateDict, FormatError> {
    match sniff(source)? {
        Kind::Zip => read_zip(source, options),
        Kind::Pickle => legacy::read(source, options),
        Kind::Safetensors => match &options.key {
            None => safetensors::read::read(source),
            Some(key) => Err(no_entries(key)),
        },
    }
}

/// safetensors hold tensors by their names and nothing above them.
fn no_entries(key: &str) -> FormatError {
    let found = format!("safetensors, which have no entries, and the key `{}`", escape(key));
    FormatError::new(Rule::NoEntry, "file", "a file with entries", found)
        .hint("name the file without the key")
}

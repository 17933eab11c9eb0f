//! Reads the state dict of one file: recognises the container, reads the pickle, collects the
//! tensors.

use crate::format::error::{FormatError, Rule};
use crate::format::read_at::ReadAt;
use crate::format::sniff::{Kind, sniff};
use crate::format::state_dict::{Container, StateDict};
use crate::format::torch::collect::{ReadOptions, collect};
use crate::format::torch::legacy;
use crate::format::torch::pickle::machine::read_pickle;
use crate::format::torch::pickle::stack::Source;
use crate::format::torch::rebuild::{Mention, Record};
use crate::format::torch::zip::archive::{Archive, missing};

/// Reads the state dict of one checkpoint file: headers and pickles only, no tensor data.
///
/// Everything is checked that later floors rely on (see [`StateDict`]); the pickle is read as data
/// and nothing in it is called. Memory grows with the pickle and the zip directory.
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
    }
}

fn read_zip(source: &dyn ReadAt, options: &ReadOptions) -> Result<StateDict, FormatError> {
    let archive = Archive::open(source)?;
    let byte_order = archive.byte_order(source)?;
    let bytes = archive.pickle(source)?;
    let total = bytes.len() as u64;
    let pickle = read_pickle(Source {
        bytes: &bytes,
        total,
        base: 0,
        what: "data.pkl",
        file_bytes: source.len(),
        opaque: &options.opaque,
    });
    let pickle = pickle.map_err(|refusal| match refusal.error.rule {
        // The file is whole: its directory says so.
        Rule::Truncated => FormatError { rule: Rule::Pickle, ..refusal.error },
        _ => refusal.error,
    })?;
    let locate = |mention: &Mention| {
        let name = format!("data/{}", mention.key);
        let entry = archive.record(&name).ok_or_else(|| missing(&name))?;
        Ok(Record {
            file_offset: entry.data_offset,
            record_bytes: entry.size_bytes,
            encoding: entry.encoding(),
            crc32: entry.known_crc32(),
        })
    };
    collect(&pickle, options, Container::Zip, byte_order, &locate)
}

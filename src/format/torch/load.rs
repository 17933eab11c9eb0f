//! Reads the state dict of a zip archive: its pickle, and the tensors that the pickle names.

use crate::format::error::{FormatError, Rule};
use crate::format::read_at::ReadAt;
use crate::format::state_dict::{Container, StateDict};
use crate::format::torch::collect::{ReadOptions, collect};
use crate::format::torch::pickle::machine::read_pickle;
use crate::format::torch::pickle::stack::Source;
use crate::format::torch::rebuild::{Mention, Record};
use crate::format::torch::zip::archive::{Archive, missing};

/// Reads the state dict of a zip archive that torch wrote.
///
/// # Errors
/// A [`FormatError`] whose [`Rule`] says what the archive or its pickle breaks.
pub(crate) fn read_zip(
    source: &dyn ReadAt,
    options: &ReadOptions,
) -> Result<StateDict, FormatError> {
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

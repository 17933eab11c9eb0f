//! Reads the format of `torch.save` before 1.6: consecutive pickles, then the storages (formats
//! D.4).
//!
//! ```text
//! magic | 1001 | sys_info | object | [keys] | numel (i64) elements | numel elements | ...
//! ```
//!
//! Only the pickles and the eight bytes before each storage are read.

use std::collections::HashMap;

use crate::format::error::{FormatError, Rule};
use crate::format::read_at::ReadAt;
use crate::format::state_dict::{ByteOrder, Container, Encoding, StateDict};
use crate::format::torch::collect::{ReadOptions, collect};
use crate::format::torch::pickle::machine::{Refusal, read_pickle};
use crate::format::torch::pickle::names::opaque::OpaqueNames;
use crate::format::torch::pickle::stack::{MAX_PICKLE_BYTES, Source};
use crate::format::torch::pickle::value::{Pickle, Value};
use crate::format::torch::rebuild::{Mention, Record, key_text, mention};
use crate::tensor::{counted, escape};

/// The value of the first pickle.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;

/// The value of the second.
const PROTOCOL: i128 = 1001;

/// First read of a pickle, in bytes; fourfold as long as it is too short.
const WINDOW_BYTES: u64 = 16 << 10;

/// Bytes that a storage takes in the maps of this module, without its key: twice an entry, since maps
/// grow by doubling.
const STORAGE_BYTES: usize = 2 * (size_of::<(String, Mention)>() + size_of::<(String, Record)>());

/// Reads a file that starts with a pickle.
///
/// # Errors
/// [`Rule::WrongKind`] where the first pickle is not the magic number, [`Rule::Legacy`] where the
/// stream breaks its rules, [`Rule::Truncated`] where it ends early, and what the pickles break.
pub(crate) fn read(source: &dyn ReadAt, options: &ReadOptions) -> Result<StateDict, FormatError> {
    let none = &OpaqueNames::default();
    let ((), start) = with_pickle(source, 0, "first pickle", none, |pickle| {
        if pickle.long(pickle.root()) == Some(MAGIC) {
            return Ok(());
        }
        let found = "a bare pickle";
        Err(FormatError::new(Rule::WrongKind, "file", "a file written by torch.save", found)
            .hint("load it with Python's pickle and save the state dict with torch.save"))
    })?;
    let ((), start) = with_pickle(source, start, "protocol pickle", none, |pickle| {
        if pickle.long(pickle.root()) == Some(PROTOCOL) {
            return Ok(());
        }
        let found = pickle.describe(pickle.root());
        Err(FormatError::new(Rule::Legacy, "protocol pickle", "the integer 1001", found))
    })?;
    let ((), start) = with_pickle(source, start, "sys_info pickle", none, check_sys_info)?;
    let (state_dict, _) = with_pickle(source, start, "object pickle", &options.opaque, |pickle| {
        let mentions = mentions(pickle)?;
        let keys_start = start.saturating_add(pickle.length() as u64);
        let (keys, data_start) =
            with_pickle(source, keys_start, "storage keys pickle", none, keys)?;
        let records = walk(source, data_start, &keys, &mentions)?;
        let locate = |mention: &Mention| {
            let record = records.get(&mention.key).copied();
            record.ok_or_else(|| not_listed(&mention.key))
        };
        collect(pickle, options, Container::Legacy, ByteOrder::Little, &locate)
    })?;
    Ok(state_dict)
}

/// Runs `read` on the pickle at `start`; also returns where it ends.
fn with_pickle<T>(
    source: &dyn ReadAt,
    start: u64,
    what: &str,
    opaque: &OpaqueNames,
    read: impl FnOnce(&Pickle<'_>) -> Result<T, FormatError>,
) -> Result<(T, u64), FormatError> {
    let total = source.len().saturating_sub(start);
    let most = total.min(MAX_PICKLE_BYTES);
    let mut bytes = Vec::new();
    let mut wanted = WINDOW_BYTES.min(most);
    loop {
        let have = bytes.len();
        bytes.resize(usize::try_from(wanted).unwrap_or(have), 0);
        let at = start.saturating_add(have as u64);
        let fresh = bytes.get_mut(have..).unwrap_or_default();
        source.read_exact_at(at, fresh).map_err(|error| FormatError::read(what, at, error))?;
        match read_pickle(Source {
            bytes: &bytes,
            total,
            base: start,
            what,
            file_bytes: source.len(),
            opaque,
        }) {
            Ok(pickle) => {
                let end = start.saturating_add(pickle.length() as u64);
                return Ok((read(&pickle)?, end));
            }
            Err(refusal) if refusal.more_would_help && wanted < most => {
                wanted = wanted.saturating_mul(4).min(most);
            }
            Err(Refusal { error, more_would_help: true }) => {
                return Err(FormatError { rule: Rule::PickleLimit, ..error });
            }
            Err(Refusal { error, .. }) if error.rule == Rule::Truncated => {
                return Err(error.hint("the file is cut short; download or copy it again"));
            }
            Err(Refusal { error, .. }) => return Err(error),
        }
    }
}

/// torch ignores it and reads storages as little-endian. A file that says big-endian comes from a
/// writer of unknown age, some of which wrote in their host's order: refused.
fn check_sys_info(pickle: &Pickle<'_>) -> Result<(), FormatError> {
    let Some(pairs) = pickle.dict(pickle.root()) else {
        let found = pickle.describe(pickle.root());
        return Err(FormatError::new(Rule::Legacy, "sys_info pickle", "a dict", found));
    };
    let big = pairs.iter().any(|(key, value)| {
        pickle.text(*key) == Some("little_endian") && pickle.get(*value) != Value::Bool(true)
    });
    if big {
        let found = "`little_endian` False";
        return Err(FormatError::new(
            Rule::ByteOrder,
            "sys_info pickle",
            "a little-endian file",
            found,
        ));
    }
    Ok(())
}

/// The first mention of every storage, by key: it gives the size in the stream.
fn mentions(pickle: &Pickle<'_>) -> Result<HashMap<String, Mention>, FormatError> {
    let mut mentions = HashMap::new();
    let mut room = pickle.room();
    for value in pickle.values() {
        if let Value::Persistent(id) = value {
            let mention = mention(pickle, id, true)?;
            if !mentions.contains_key(&mention.key) {
                // The list of keys and both maps may each keep a copy.
                let key_bytes = mention.key.len().saturating_mul(4);
                room.take(STORAGE_BYTES.saturating_add(key_bytes))?;
                mentions.insert(mention.key.clone(), mention);
            }
        }
    }
    Ok(mentions)
}

fn keys(pickle: &Pickle<'_>) -> Result<Vec<String>, FormatError> {
    let root = pickle.root();
    let broken =
        |found| FormatError::new(Rule::Legacy, "storage keys pickle", "a list of keys", found);
    let Value::List(_) = pickle.get(root) else {
        return Err(broken(pickle.describe(root).into_owned()));
    };
    let items = pickle.sequence(pickle.get(root)).unwrap_or_default();
    let text =
        |item| key_text(pickle, item).ok_or_else(|| broken(pickle.describe(item).into_owned()));
    items.iter().copied().map(text).collect()
}

/// Walks the storages and records where each one's elements are.
fn walk(
    source: &dyn ReadAt,
    start: u64,
    keys: &[String],
    mentions: &HashMap<String, Mention>,
) -> Result<HashMap<String, Record>, FormatError> {
    let mut records = HashMap::new();
    let mut position = start;
    for key in keys {
        let what = format!("storage `{}`", escape(key));
        let refuse = |rule, expected: String, found: String| {
            FormatError::new(rule, &what, expected, found).at(position)
        };
        let Some(mention) = mentions.get(key) else {
            return Err(refuse(Rule::Legacy, "a key that a tensor uses".into(), "another".into()));
        };
        let mut numel = [0; 8];
        source
            .read_exact_at(position, &mut numel)
            .map_err(|error| FormatError::read(&what, position, error))?;
        let numel = i64::from_le_bytes(numel);
        if u64::try_from(numel) != Ok(mention.numel) {
            let expected = counted(mention.numel, "element");
            return Err(refuse(Rule::StorageSize, expected, numel.to_string()));
        }
        let file_offset = position.saturating_add(8);
        let end = file_offset.checked_add(mention.size_bytes);
        let Some(end) = end.filter(|end| *end <= source.len()) else {
            let left = source.len().saturating_sub(file_offset);
            let expected = counted(mention.size_bytes, "byte");
            return Err(refuse(Rule::Truncated, expected, left.to_string())
                .hint("the file is cut short; download or copy it again"));
        };
        let record = Record {
            file_offset,
            record_bytes: mention.size_bytes,
            encoding: Encoding::Stored,
            crc32: None,
        };
        if records.insert(key.clone(), record).is_some() {
            return Err(refuse(Rule::Legacy, "keys once".into(), "one twice".into()));
        }
        position = end;
    }
    match mentions.keys().filter(|key| !records.contains_key(*key)).min() {
        Some(key) => Err(not_listed(key)),
        None => Ok(records),
    }
}

/// torch would leave such a storage uninitialised.
fn not_listed(key: &str) -> FormatError {
    let expected = format!("storage `{}`", escape(key));
    FormatError::new(Rule::MissingRecord, "storage keys pickle", expected, "no such key")
}

//! One file -> its state dict: recognise the container, read the pickle, find the tensors.

use std::collections::{HashMap, HashSet};

use super::candidates::choose;
use super::error::{FormatError, Rule};
use super::left_out::opaque_values;
use super::legacy;
use super::pickle::{OpaqueNames, Pickle, Ref, Source, Value, read_pickle, worded};
use super::read_at::ReadAt;
use super::rebuild::{Mention, Rebuilder, Record};
use super::sniff::{Kind, sniff};
use super::state_dict::{ByteOrder, Container, StateDict, Tensor};
use super::zip::{Archive, missing};
use crate::tensor::escape;

/// What a user says of a file beside its path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The entry that is the state dict, or that holds it; `None` where it is to be found.
    ///
    /// Dots lead into dicts of dicts: `model.ema` is the entry `model.ema` of the file where it has
    /// one, else the entry `ema` of its entry `model`. The longest key that fits is taken at each
    /// step; slashes and all other characters are part of a key. The empty key is the top level.
    pub key: Option<String>,
    /// Names of other programs that may stand beside the tensors.
    pub opaque: OpaqueNames,
}

/// Reads the state dict of one checkpoint file: headers and pickles only, no tensor data.
///
/// Everything is checked that later floors rely on (see [`StateDict`]); the pickle is read as data
/// and nothing in it is called. Memory grows with the pickle and the zip directory.
///
/// # Errors
/// A [`FormatError`] whose [`Rule`] says what the file breaks.
pub fn read_state_dict(source: &dyn ReadAt) -> Result<StateDict, FormatError> {
    read_state_dict_as(source, &ReadOptions::default())
}

/// The same, with what the user says of the file.
///
/// # Errors
/// As [`read_state_dict`]; [`Rule::NoEntry`] where the file has no dict under the user's key.
pub fn read_state_dict_as(
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

/// The state dict in a pickle's value.
pub(super) fn collect(
    pickle: &Pickle<'_>,
    options: &ReadOptions,
    container: Container,
    byte_order: ByteOrder,
    locate: &dyn Fn(&Mention) -> Result<Record, FormatError>,
) -> Result<StateDict, FormatError> {
    let mut room = pickle.budget();
    let chosen = choose(pickle, options.key.as_deref(), &mut room)?;
    let opaque = opaque_values(pickle, &chosen, &mut room)?;
    let (nest, mut skipped) = (chosen.nest(), chosen.beside(pickle, &mut room)?);
    let mut rebuilder = Rebuilder {
        pickle,
        legacy: container == Container::Legacy,
        byte_order,
        locate,
        storages: Vec::new(),
        by_key: HashMap::new(),
    };
    let mut tensors = Vec::new();
    let mut names = HashSet::new();
    for (key, value) in chosen.pairs {
        let Some(name) = pickle.text(*key) else {
            let found = pickle.describe(*key);
            return Err(FormatError::new(Rule::TensorName, "state dict", "names as text", found));
        };
        if !names.insert(name) {
            let found = format!("`{}` twice", escape(name));
            return Err(FormatError::new(Rule::TensorName, "state dict", "names once", found));
        }
        // One tensor of many dimensions may be shown under a million names.
        take_room(&mut room, NAME_BYTES.saturating_add(name.len()), pickle)?;
        if is_tensor(pickle, *value) {
            let tensor = rebuilder.tensor(name, *value)?;
            let rank = tensor.layout.shape.len();
            take_room(&mut room, rank.saturating_mul(2 * size_of::<u64>()), pickle)?;
            tensors.push(tensor);
        } else {
            if let Value::Call { function, .. } = pickle.get(*value)
                && function.makes_array()
            {
                let found = "a numpy array";
                return Err(FormatError::new(Rule::Unsupported, "state dict", "a tensor", found)
                    .tensor(name)
                    .hint("load the file with torch and save a state dict of tensors"));
            }
            skipped.push(name.to_owned());
        }
    }
    let storages = rebuilder.storages;
    Ok(StateDict { container, tensors, storages, nest, skipped, opaque })
}

/// Bytes that a name takes with its tensor, but for its text and its dimensions: the tensor, a place
/// in the set of names, and the blocks of text, shape and stride.
const NAME_BYTES: usize = size_of::<Tensor>() + 96;

/// Takes bytes off the memory that what is made of a pickle may still take.
///
/// # Errors
/// [`Rule::PickleLimit`] where there are not as many.
pub(super) fn take_room(
    room: &mut u64,
    bytes: usize,
    pickle: &Pickle<'_>,
) -> Result<(), FormatError> {
    match room.checked_sub(bytes as u64) {
        Some(left) => *room = left,
        None => {
            let expected = worded("tensors", pickle.budget());
            return Err(FormatError::new(Rule::PickleLimit, "state dict", expected, "more"));
        }
    }
    Ok(())
}

/// Whether a value is a tensor of any kind, or a bare storage: what must not be skipped silently.
pub(super) fn is_tensor(pickle: &Pickle<'_>, value: Ref) -> bool {
    match pickle.get(value) {
        Value::Call { function, .. } => function.makes_tensor(),
        Value::Persistent(_) => true,
        _ => false,
    }
}

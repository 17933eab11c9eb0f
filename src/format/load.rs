//! One file -> its state dict: recognise the container, read the pickle, find the tensors.

use std::collections::{HashMap, HashSet};

use super::error::{FormatError, Rule};
use super::legacy;
use super::pickle::{Pickle, Ref, Source, Value, read_pickle, worded};
use super::read_at::ReadAt;
use super::rebuild::{Mention, Rebuilder, Record};
use super::sniff::{Kind, sniff};
use super::state_dict::{ByteOrder, Container, StateDict, Tensor};
use super::zip::{Archive, missing};
use crate::tensor::escape;

/// Keys under which training programs keep a state dict, besides what else they save.
const NESTS: [&str; 4] = ["state_dict", "model_state_dict", "model", "module"];

/// Reads the state dict of one checkpoint file: headers and pickles only, no tensor data.
///
/// Everything is checked that later floors rely on (see [`StateDict`]); the pickle is read as data
/// and nothing in it is called. Memory grows with the pickle and the zip directory.
///
/// # Errors
/// A [`FormatError`] whose [`Rule`] says what the file breaks.
pub fn read_state_dict(source: &dyn ReadAt) -> Result<StateDict, FormatError> {
    match sniff(source)? {
        Kind::Zip => read_zip(source),
        Kind::Pickle => legacy::read(source),
    }
}

fn read_zip(source: &dyn ReadAt) -> Result<StateDict, FormatError> {
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
    collect(&pickle, Container::Zip, byte_order, &locate)
}

/// The state dict in a pickle's value.
pub(super) fn collect(
    pickle: &Pickle<'_>,
    container: Container,
    byte_order: ByteOrder,
    locate: &dyn Fn(&Mention) -> Result<Record, FormatError>,
) -> Result<StateDict, FormatError> {
    let (dict, nest, mut skipped) = choose(pickle)?;
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
    let mut room = pickle.budget();
    for (key, value) in dict {
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
            skipped.push(name.to_owned());
        }
    }
    let storages = rebuilder.storages;
    Ok(StateDict { container, tensors, storages, nest, skipped })
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

/// A dict's pairs, the key it was found under, and the keys beside it.
type Choice<'p> = (&'p [(Ref, Ref)], Option<String>, Vec<String>);

/// The dict with the tensors: the top one, or the only one under a known key.
fn choose<'p>(pickle: &'p Pickle<'_>) -> Result<Choice<'p>, FormatError> {
    let top = pickle.dict(pickle.root()).ok_or_else(|| {
        let found = pickle.describe(pickle.root());
        FormatError::new(Rule::NoStateDict, "pickle", "a dict of tensors", found)
            .hint("save the model's state_dict() with torch.save")
    })?;
    let has_tensors = |pairs: &[(Ref, Ref)]| pairs.iter().any(|pair| is_tensor(pickle, pair.1));
    // Sharded savers of old wrote shards without a tensor: an empty dict is a state dict.
    if top.is_empty() || has_tensors(top) {
        return Ok((top, None, Vec::new()));
    }
    let nested = |wanted: &dyn Fn(&str) -> bool| -> Vec<(&'p str, Ref)> {
        let named = top.iter().filter_map(|(key, value)| Some((pickle.text(*key)?, *value)));
        let dicts = named
            .filter(|(name, value)| wanted(name) && pickle.dict(*value).is_some_and(has_tensors));
        dicts.collect()
    };
    let mut found = nested(&|name| NESTS.contains(&name));
    if found.is_empty() {
        // Averaged weights are taken only where there are no others.
        let separator = |c: char| !c.is_ascii_alphanumeric();
        found = nested(&|name| name.split(separator).any(|part| part.eq_ignore_ascii_case("ema")));
    }
    match found.as_slice() {
        [(nest, value)] => {
            let beside = top.iter().filter(|pair| pickle.text(pair.0) != Some(*nest));
            let beside = beside.map(|pair| match pickle.text(pair.0) {
                Some(name) => name.to_owned(),
                None => pickle.describe(pair.0).into_owned(),
            });
            let pairs = pickle.dict(*value).unwrap_or_default();
            Ok((pairs, Some((*nest).to_owned()), beside.collect()))
        }
        [] => {
            let keys = top.iter().filter_map(|pair| pickle.text(pair.0)).take(8);
            let keys: Vec<String> = keys.map(|key| format!("`{}`", escape(key))).collect();
            let found = match keys.is_empty() {
                true => "none".to_owned(),
                false => format!("none under {}", keys.join(", ")),
            };
            Err(FormatError::new(Rule::NoStateDict, "pickle", "a dict of tensors", found))
        }
        several => {
            let names: Vec<String> =
                several.iter().map(|(name, _)| format!("`{}`", escape(name))).collect();
            let found = names.join(", ");
            Err(FormatError::new(Rule::NoStateDict, "pickle", "one dict of tensors", found)
                .hint("save the one that you mean by itself with torch.save"))
        }
    }
}

/// Whether a value is a tensor of any kind, or a bare storage: what must not be skipped silently.
fn is_tensor(pickle: &Pickle<'_>, value: Ref) -> bool {
    match pickle.get(value) {
        Value::Call { function, .. } => function.makes_tensor(),
        Value::Persistent(_) => true,
        _ => false,
    }
}

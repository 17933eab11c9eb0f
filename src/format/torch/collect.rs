//! Collects the state dict from a pickle's values: chooses the dict, makes its tensors, lists what
//! is left out.

use std::collections::{HashMap, HashSet};

use crate::format::error::{FormatError, Rule};
use crate::format::state_dict::{ByteOrder, Container, StateDict, Tensor};
use crate::format::torch::candidates::choose;
use crate::format::torch::leftovers::opaque_values;
use crate::format::torch::pickle::names::opaque::OpaqueNames;
use crate::format::torch::pickle::value::{Pickle, Value};
use crate::format::torch::rebuild::{Mention, Rebuilder, Record};
use crate::tensor::escape;

/// What the user says about a file, besides its path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The entry that is the state dict, or that holds it; `None` where it is to be found.
    ///
    /// Dots lead into dicts of dicts: `model.ema` is the entry `model.ema` of the file where it has
    /// one, else the entry `ema` of its entry `model`. The longest key that fits is taken at each
    /// step; slashes and all other characters are part of a key. The empty key is the top level.
    pub key: Option<String>,
    /// Names that the user allows beside the tensors (`--opaque`).
    pub opaque: OpaqueNames,
}

/// Bytes that a name and its tensor take, without text and dimensions: the tensor, a slot in the set
/// of names, and the allocator's overhead for text, shape and stride.
const NAME_BYTES: usize = size_of::<Tensor>() + 96;

/// The state dict in a pickle's value.
pub(crate) fn collect(
    pickle: &Pickle<'_>,
    options: &ReadOptions,
    container: Container,
    byte_order: ByteOrder,
    locate: &dyn Fn(&Mention) -> Result<Record, FormatError>,
) -> Result<StateDict, FormatError> {
    let mut room = pickle.room();
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
        // One tensor of many dimensions may have a million names.
        room.take(NAME_BYTES.saturating_add(name.len()))?;
        if pickle.is_tensor(*value) {
            let tensor = rebuilder.tensor(name, *value)?;
            let rank = tensor.layout.shape.len();
            room.take(rank.saturating_mul(2 * size_of::<u64>()))?;
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

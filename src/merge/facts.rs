//! What a checkpoint is in a few figures.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use crate::checkpoint::{Checkpoint, TensorEntry};
use crate::format::Container;
use crate::merge::buffers::is_buffer;
use crate::merge::vocab::{embedding, is_head_name, rows};
use crate::tensor::DType;

/// A model as a list of models shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelFacts {
    /// The container of the weight files.
    pub container: &'static str,
    /// Weight files.
    pub files: usize,
    /// Bytes of all weight files.
    pub bytes: u64,
    /// The first of config.json's `architectures`, else its `model_type`.
    pub architecture: Option<String>,
    /// Elements of all floating tensors but known buffers; tied tensors count once.
    pub parameters: u64,
    /// dtypes of those, most elements first.
    pub dtypes: Vec<DType>,
    /// Rows of the input embedding.
    pub vocab: Option<u64>,
    /// Whether the output head is the input embedding; `None` where that is not known.
    pub tied: Option<bool>,
}

impl ModelFacts {
    /// The figures of an opened checkpoint.
    pub fn of(checkpoint: &Checkpoint) -> ModelFacts {
        let mut seen = HashSet::new();
        let mut elements: BTreeMap<DType, u64> = BTreeMap::new();
        for tensor in &checkpoint.inventory.tensors {
            let (dtype, shape) = (tensor.dtype, &tensor.layout.shape);
            let counts = dtype.is_floating() && !is_buffer(&tensor.name, dtype, shape);
            if counts && seen.insert((tensor.storage, &tensor.layout)) {
                let sum = elements.entry(tensor.dtype).or_default();
                *sum = sum.saturating_add(tensor.layout.numel().unwrap_or(0));
            }
        }
        let mut dtypes: Vec<(DType, u64)> = elements.into_iter().collect();
        dtypes.sort_by_key(|dtype| std::cmp::Reverse(dtype.1));
        let containers: HashSet<bool> =
            checkpoint.containers.iter().map(|container| *container == Container::Zip).collect();
        let config = checkpoint.config.as_ref().map(|config| config.facts());
        ModelFacts {
            container: match (containers.contains(&true), containers.contains(&false)) {
                (true, true) => "zip and legacy",
                (false, true) => "legacy",
                _ => "zip",
            },
            files: checkpoint.files.len(),
            bytes: checkpoint.file_bytes(),
            architecture: config.and_then(|facts| {
                facts.architectures.first().or(facts.model_type.as_ref()).cloned()
            }),
            parameters: dtypes.iter().map(|dtype| dtype.1).fold(0, u64::saturating_add),
            dtypes: dtypes.into_iter().map(|dtype| dtype.0).collect(),
            vocab: rows(checkpoint),
            tied: tied(checkpoint),
        }
    }
}

/// Whether the output head is the input embedding: by the storages where the files have both; a model
/// with a head that its files lack has it tied.
fn tied(checkpoint: &Checkpoint) -> Option<bool> {
    let inventory = &checkpoint.inventory;
    let embedding = embedding(inventory)?;
    let config = checkpoint.config.as_ref().map(|config| config.facts());
    match inventory.tensors.iter().find(|tensor| is_head(tensor)) {
        Some(head) => Some(inventory.tied(head, embedding)),
        None => config.and_then(|facts| {
            let generates =
                |name: &String| name.ends_with("ForCausalLM") || name.contains("LMHead");
            let headed = facts.architectures.iter().any(generates).then_some(true);
            facts.tie_word_embeddings.or(headed)
        }),
    }
}

fn is_head(tensor: &TensorEntry) -> bool {
    is_head_name(&tensor.name) && tensor.layout.shape.len() == 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn open(name: &str) -> Checkpoint {
        let data = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data"));
        Checkpoint::open(&data.join(name)).unwrap()
    }

    #[test]
    fn the_figures_are_those_that_transformers_gives() {
        // `sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(DIR).parameters())`
        let llama = ModelFacts::of(&open("llama/primary"));
        assert_eq!((llama.parameters, llama.vocab, llama.tied), (158_016, Some(512), Some(false)));
        assert_eq!((llama.files, llama.container), (4, "zip"));
        assert_eq!(llama.dtypes, [DType::Float16]);
        let gpt2 = ModelFacts::of(&open("gpt2/primary"));
        assert_eq!((gpt2.parameters, gpt2.tied), (62_560, Some(true)));
        assert_eq!(gpt2.architecture.as_deref(), Some("GPT2LMHeadModel"));
    }
}

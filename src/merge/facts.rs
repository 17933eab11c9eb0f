//! What a checkpoint is in a few figures, and which checkpoints fit each other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;

use crate::checkpoint::{Checkpoint, TensorEntry};
use crate::format::Container;
use crate::merge::plan::{is_buffer, is_parameter};
use crate::merge::vocab::{embedding, is_head_name, own_axis, rows};
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
    /// Equal for models that fit each other.
    #[serde(skip)]
    shape: u64,
}

impl ModelFacts {
    /// The figures of an opened checkpoint.
    pub fn of(checkpoint: &Checkpoint) -> ModelFacts {
        let mut seen = HashSet::new();
        let mut elements: BTreeMap<DType, u64> = BTreeMap::new();
        for tensor in &checkpoint.inventory.tensors {
            let counts =
                tensor.dtype.is_floating() && is_parameter(&tensor.name, &tensor.layout.shape);
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
        let tied = tied(checkpoint);
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
            tied,
            shape: shape(checkpoint, tied),
        }
    }

    /// Whether two models have the same tensors in the same shapes, but for the rows of the
    /// vocabulary, for buffers, and for the name of a tied output head.
    pub fn fits(&self, other: &ModelFacts) -> bool {
        self.shape == other.shape
    }
}

/// The groups of models that fit each other, by their places in `models`: each of two or more, in the
/// order of their first members.
pub fn groups(models: &[&ModelFacts]) -> Vec<Vec<usize>> {
    let mut places: HashMap<u64, usize> = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (position, model) in models.iter().enumerate() {
        let group = *places.entry(model.shape).or_insert(groups.len());
        match groups.get_mut(group) {
            Some(members) => members.push(position),
            None => groups.push(vec![position]),
        }
    }
    groups.retain(|members| members.len() > 1);
    groups
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

/// A number that stands for all names and shapes: 64 bits, enough to tell some thousand models apart.
fn shape(checkpoint: &Checkpoint, tied: Option<bool>) -> u64 {
    let vocab = rows(checkpoint);
    let by_name = embedding(&checkpoint.inventory).is_some();
    let mut tensors: Vec<(&str, Option<DType>, &[u64], bool)> = Vec::new();
    for tensor in &checkpoint.inventory.tensors {
        let shape = tensor.layout.shape.as_slice();
        if is_buffer(&tensor.name, shape) || (tied == Some(true) && is_head(tensor)) {
            continue;
        }
        let axis = vocab.filter(|_| tensor.dtype.is_floating()).and_then(|rows| match by_name {
            true => own_axis(&tensor.name, shape, rows),
            false => (shape.first() == Some(&rows)).then_some(0),
        });
        let dtype = Some(tensor.dtype).filter(|dtype| !dtype.is_floating());
        // The shape but for the rows.
        let rest = match axis {
            Some(0) => shape.get(1..).unwrap_or_default(),
            Some(axis) => shape.get(..axis).unwrap_or_default(),
            None => shape,
        };
        tensors.push((&tensor.name, dtype, rest, axis.is_some()));
    }
    tensors.sort_unstable();
    let mut hasher = DefaultHasher::new();
    tensors.hash(&mut hasher);
    hasher.finish()
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
    fn models_fit_exactly_where_a_plan_can_be_made_and_misses_no_weight() {
        let names = ["llama", "gpt2", "neox"];
        let names =
            names.iter().flat_map(|name| ["primary", "secondary"].map(|p| format!("{name}/{p}")));
        let models: Vec<Checkpoint> = names.map(|name| open(&name)).collect();
        let facts: Vec<ModelFacts> = models.iter().map(ModelFacts::of).collect();
        for (a, ours) in models.iter().zip(&facts) {
            for (b, theirs) in models.iter().zip(&facts) {
                let plan = crate::merge::plan(a, b, &crate::merge::MergeOptions::default());
                assert_eq!(plan.is_ok(), ours.fits(theirs), "{:?} {:?}", a.path, b.path);
            }
        }
        let all: Vec<&ModelFacts> = facts.iter().collect();
        assert_eq!(groups(&all), [[0, 1], [2, 3], [4, 5]]);
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

//! `ModelFacts`: the figures of a model that `find` lists: containers, parameters, dtypes,
//! vocabulary.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::format::Container;
use crate::merge::names::buffers::is_parameter;
use crate::merge::ties::output_heads::{is_output_head, is_tied};
use crate::merge::vocab::rows::rows;
use crate::tensor::DType;

/// One model in a list of models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelFacts {
    /// The container of the weight files.
    pub container: String,
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
        let tied = is_tied(checkpoint);
        let mut seen = HashSet::new();
        let mut elements: BTreeMap<DType, u64> = BTreeMap::new();
        for tensor in &checkpoint.inventory.tensors {
            let (dtype, shape) = (tensor.dtype, &tensor.layout.shape);
            let is_embedding = tied == Some(true) && is_output_head(tensor);
            let counts =
                dtype.is_floating() && !is_embedding && is_parameter(&tensor.name, dtype, shape);
            if counts && seen.insert((tensor.storage, &tensor.layout)) {
                let sum = elements.entry(tensor.dtype).or_default();
                *sum = sum.saturating_add(tensor.layout.numel().unwrap_or(0));
            }
        }
        let mut dtypes: Vec<(DType, u64)> = elements.into_iter().collect();
        dtypes.sort_by_key(|dtype| std::cmp::Reverse(dtype.1));
        let containers: BTreeSet<Container> = checkpoint.containers.iter().copied().collect();
        let containers: Vec<&str> = containers.iter().map(|container| container.name()).collect();
        let config = checkpoint.config.as_ref().map(|config| config.facts());
        ModelFacts {
            container: containers.join(" and "),
            files: checkpoint.files.len(),
            bytes: checkpoint.file_bytes(),
            architecture: config.and_then(|facts| {
                facts.architectures.first().or(facts.model_type.as_ref()).cloned()
            }),
            parameters: dtypes.iter().map(|dtype| dtype.1).fold(0, u64::saturating_add),
            dtypes: dtypes.into_iter().map(|dtype| dtype.0).collect(),
            vocab: rows(checkpoint),
            tied,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::headers::Headers;
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
        assert_eq!((llama.files, llama.container.as_str()), (4, "zip"));
        assert_eq!(llama.dtypes, [DType::Float16]);
        let gpt2 = ModelFacts::of(&open("gpt2/primary"));
        assert_eq!((gpt2.parameters, gpt2.tied), (62_560, Some(true)));
        assert_eq!(gpt2.architecture.as_deref(), Some("GPT2LMHeadModel"));
    }

    #[test]
    fn containers_and_architectures_have_the_names_that_a_list_shows() {
        use Container::{Legacy, Zip};
        for (containers, config, expected) in [
            (&[Zip, Zip][..], "{}", ("zip", None)),
            (&[Legacy], r#"{"model_type": "llama"}"#, ("legacy", Some("llama"))),
            (
                &[Zip, Legacy],
                r#"{"architectures": ["A", "B"], "model_type": "c"}"#,
                ("zip and legacy", Some("A")),
            ),
        ] {
            let mut parent = Headers::new().config(config).open();
            parent.containers = containers.to_vec();
            let facts = ModelFacts::of(&parent);
            assert_eq!((facts.container.as_str(), facts.architecture.as_deref()), expected);
        }
    }

    #[test]
    fn parameters_are_floating_elements_counted_once_and_no_buffers() {
        let parent = Headers::new().tensor("a.w", DType::Float32, &[3, 2]).f16("b.w", &[5, 2]);
        let parent = parent.tied("c.w", "b.w").tensor("ids", DType::Int64, &[7]);
        let facts = ModelFacts::of(&parent.f16("rotary.inv_freq", &[4]).open());
        assert_eq!((facts.parameters, facts.vocab, facts.tied), (16, None, None));
        assert_eq!(facts.dtypes, [DType::Float16, DType::Float32]);
    }
}

//! A plan for safetensors, in which every name has a tensor of its own.

use crate::checkpoint::Checkpoint;
use crate::merge::plan::planned::{PlannedStorage, PlannedTensor};
use crate::merge::ties::left_out::left_out;
use crate::merge::warning::Warning;

/// Tensors and storages of the child without ties: names that loading makes again are left out, as
/// transformers does; other names of one tensor each get a copy of it, for which transformers has no
/// answer, with a warning.
pub(crate) fn untied(
    primary: &Checkpoint,
    tensors: &[PlannedTensor],
    storages: &[PlannedStorage],
    warnings: &mut Vec<Warning>,
) -> (Vec<PlannedTensor>, Vec<PlannedStorage>) {
    let config = primary.config.as_ref().map(|config| config.facts());
    let mut names: Vec<Vec<&str>> = vec![Vec::new(); storages.len()];
    for tensor in tensors {
        if let Some(names) = names.get_mut(tensor.storage) {
            names.push(&tensor.name);
        }
    }
    let mut lost: Vec<Vec<&str>> = Vec::with_capacity(storages.len());
    for names in names {
        let out = config.map_or_else(Vec::new, |config| left_out(config, &names));
        if names.len() - out.len() > 1 {
            let copies = names.iter().filter(|name| !out.contains(name));
            warnings
                .push(Warning::Copies { names: copies.map(|name| (*name).to_owned()).collect() });
        }
        lost.push(out);
    }
    let mut made = (Vec::with_capacity(storages.len()), Vec::with_capacity(storages.len()));
    for tensor in tensors {
        let is_lost = |lost: &Vec<&str>| lost.contains(&tensor.name.as_str());
        if let (Some(storage), Some(false)) =
            (storages.get(tensor.storage), lost.get(tensor.storage).map(is_lost))
        {
            made.0.push(PlannedTensor { name: tensor.name.clone(), storage: made.1.len() });
            made.1.push(PlannedStorage { name: tensor.name.clone(), ..storage.clone() });
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use crate::format::WeightFormat;
    use crate::merge::headers::{Headers, llama};
    use crate::merge::{MergeOptions, MergePlan, Warning, plan};

    const EMBEDDING: &str = "model.embed_tokens.weight";
    const HEAD: &str = "lm_head.weight";

    fn planned(headers: &Headers, format: WeightFormat) -> MergePlan {
        let parent = headers.clone().open();
        let options = MergeOptions { format: Some(format), ..MergeOptions::default() };
        plan(&parent, &parent, &options).unwrap()
    }

    #[test]
    fn a_declared_copy_is_left_out_and_others_become_tensors_of_their_own() {
        let tied = llama(64).without(HEAD).tied(HEAD, EMBEDDING);
        for (config, names, copies) in [
            (r#"{"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": true}"#, 20, false),
            (r#"{"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": false}"#, 21, true),
            (r#"{"architectures": ["OwnModel"]}"#, 21, true),
            ("{}", 21, true),
        ] {
            let headers = tied.clone().config(config);
            let bin = planned(&headers, WeightFormat::Bin);
            assert_eq!((bin.tensors.len(), bin.storages.len()), (21, 20));
            let safe = planned(&headers, WeightFormat::Safetensors);
            assert_eq!((safe.tensors.len(), safe.storages.len()), (names, names), "{config}");
            assert!(safe.tensors.iter().enumerate().all(|(at, tensor)| tensor.storage == at));
            assert!(safe.tensors.iter().zip(&safe.storages).all(|(t, s)| t.name == s.name));
            let warned = Warning::Copies { names: vec![EMBEDDING.to_owned(), HEAD.to_owned()] };
            assert_eq!(safe.warnings.contains(&warned), copies, "{config}");
            // Both formats count the parameters of the model.
            assert_eq!(safe.total_parameters, bin.total_parameters);
            assert_eq!(safe.shards[0].file_name, "model.safetensors");
            let bytes = bin.total_size + if copies { 64 * 32 * 2 } else { 0 };
            assert_eq!(safe.total_size, bytes);
        }
    }
}

//! The tensors of a model that is written anew: every one as it is.

use std::collections::HashMap;

use crate::checkpoint::{Checkpoint, TensorEntry};
use crate::error::{Error, Kind, Result};
use crate::merge::names::buffers::KnownBuffer;
use crate::merge::options::MergeOptions;
use crate::merge::plan::planned::{Action, PlannedStorage, PlannedTensor};
use crate::tensor::{DType, Layout};

/// The child's tensors, one for each of the model's, and its storages: one for each view, which is what
/// torch keeps of ties.
///
/// # Errors
/// [`Kind::Data`] for views whose elements outnumber the bytes behind them, and for tensors too large.
pub(crate) fn copies(
    model: &Checkpoint,
    options: &MergeOptions,
) -> Result<(Vec<PlannedTensor>, Vec<PlannedStorage>)> {
    let all = &model.inventory.tensors;
    let mut tensors = Vec::with_capacity(all.len());
    let mut storages: Vec<PlannedStorage> = Vec::with_capacity(all.len());
    let mut seen: HashMap<(usize, &Layout, DType), usize> = HashMap::new();
    for (position, tensor) in all.iter().enumerate() {
        let made = storages.len();
        // Tensors without elements are never one.
        let storage = match tensor.layout.numel() {
            Some(0) => made,
            _ => *seen.entry((tensor.storage, &tensor.layout, tensor.dtype)).or_insert(made),
        };
        if storage == made {
            storages.push(copied(model, tensor, position, options)?);
        }
        tensors.push(PlannedTensor { name: tensor.name.clone(), storage });
    }
    Ok((tensors, storages))
}

fn copied(
    model: &Checkpoint,
    tensor: &TensorEntry,
    position: usize,
    options: &MergeOptions,
) -> Result<PlannedStorage> {
    let shape = tensor.layout.shape.clone();
    let refused = |expected: &str, found: String| {
        let file = model.files.get(model.inventory.file_of(tensor)).map(|source| source.path());
        Error::new(Kind::Data, "a tensor can't be written anew")
            .file(file.unwrap_or(&model.path))
            .tensor(&tensor.name)
            .expected(expected, found)
    };
    let bytes = |item: u64| tensor.layout.numel().and_then(|numel| numel.checked_mul(item));
    let stored = model.inventory.storages.get(tensor.storage).map_or(0, |s| s.size_bytes);
    if bytes(tensor.dtype.size_bytes()).is_none_or(|bytes| bytes > stored) {
        let found = format!("an expanded view {shape:?} over {stored} bytes");
        return Err(refused("a tensor no larger than its storage", found)
            .with_hint("save it with .contiguous()"));
    }
    let numel = tensor
        .layout
        .numel()
        .filter(|_| bytes(16).is_some_and(|bytes| i64::try_from(bytes).is_ok()));
    let Some(numel) = numel else {
        return Err(refused("fewer than 2^59 elements", format!("{shape:?}")));
    };
    let floating = tensor.dtype.is_floating();
    Ok(PlannedStorage {
        name: tensor.name.clone(),
        dtype: options.dtype.filter(|_| floating).unwrap_or(tensor.dtype),
        action: Action::Copy,
        primary: Some(position),
        secondary: None,
        extension: None,
        by_word: None,
        buffer: KnownBuffer::of(&tensor.name, tensor.dtype, &shape),
        shape,
        numel,
        t: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use crate::error::Kind;
    use crate::format::WeightFormat;
    use crate::merge::headers::{Headers, llama};
    use crate::merge::{Action, MergeOptions, conversion};
    use crate::tensor::DType;

    #[test]
    fn every_tensor_is_copied_under_its_own_name_and_ties_stay() {
        use DType::{Complex64, Float16, Float32, Int64};
        let model = Headers::new()
            .f16("_orig_mod.w", &[4, 4])
            .tied("head", "_orig_mod.w")
            .tensor("ids", Int64, &[3])
            .tensor("c", Complex64, &[2])
            .f16("e", &[0])
            .tied("f", "e")
            .open();
        for (dtype, expected) in [(None, Float16), (Some(Float32), Float32)] {
            let options = MergeOptions { dtype, ..MergeOptions::default() };
            let plan = conversion(&model, &options).unwrap();
            assert!(plan.conversion);
            let made: Vec<(&str, usize)> =
                plan.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.storage)).collect();
            let names = [("_orig_mod.w", 0), ("head", 0), ("ids", 1), ("c", 2), ("e", 3), ("f", 4)];
            assert_eq!(made, names);
            let dtypes: Vec<DType> = plan.storages.iter().map(|storage| storage.dtype).collect();
            assert_eq!(dtypes, [expected, Int64, Complex64, expected, expected]);
            assert!(
                plan.storages.iter().all(|s| s.action == Action::Copy && s.secondary.is_none())
            );
        }
    }

    #[test]
    fn what_is_no_model_is_refused() {
        let refused = |headers: Headers, dtype| {
            let options = MergeOptions { dtype, ..MergeOptions::default() };
            let error = conversion(&headers.open(), &options).unwrap_err();
            assert_eq!(error.kind(), Kind::Data);
            error.to_string()
        };
        assert!(refused(Headers::new(), None).starts_with("there is nothing to write"));
        let adapter =
            Headers::new().f16("base_model.model.q.lora_A.weight", &[4, 4]).adapter("LORA");
        assert!(refused(adapter, None).contains("LoRA"));
        let expanded = {
            let mut model = Headers::new().f16("w", &[4]).open();
            model.inventory.storages[0].size_bytes -= 1;
            model
        };
        let error = conversion(&expanded, &MergeOptions::default()).unwrap_err();
        assert!(error.to_string().contains("an expanded view [4] over 7 bytes"), "{error}");
    }

    #[test]
    fn the_format_is_the_models_or_the_one_asked_for() {
        for (format, file) in [
            (None, "pytorch_model.bin"),
            (Some(WeightFormat::Bin), "pytorch_model.bin"),
            (Some(WeightFormat::Safetensors), "model.safetensors"),
        ] {
            let options = MergeOptions { format, ..MergeOptions::default() };
            let plan = conversion(&llama(8).open(), &options).unwrap();
            assert_eq!(plan.shards[0].file_name, file);
        }
    }
}

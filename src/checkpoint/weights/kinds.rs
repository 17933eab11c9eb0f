//! Recognises kinds of files by their names: weights, safetensors, unfinished downloads.

use std::ffi::OsStr;
use std::path::Path;

use crate::tensor::{self, escape};

/// Prefixes of the files that training programs leave beside the weights: states of optimizer,
/// schedule, loss scale and random numbers, and settings (transformers, accelerate, DeepSpeed).
const TRAINING_FILES: [&str; 7] = [
    "optimizer",
    "scheduler",
    "scaler",
    "rng_state",
    "random_states",
    "training_args",
    "zero_pp_rank",
];

/// Names that [`listed`] shows.
const SHOWN: usize = 4;

/// Whether a file of this name may hold a state dict.
pub(crate) fn is_weight_file(name: &OsStr) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    matches!(extension, Some("bin" | "pt" | "pth" | "ckpt" | "safetensors"))
        && !is_training_file(name)
}

/// Whether a file of this name is an unfinished download of huggingface_hub, aria2, curl or a
/// browser.
pub(super) fn is_unfinished(name: &OsStr) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    let known = ["incomplete", "aria2", "part", "partial", "crdownload", "download"];
    extension.is_some_and(|extension| known.contains(&extension))
}

fn is_training_file(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    TRAINING_FILES.iter().any(|start| name.starts_with(start)) || name.contains("optim_states")
}

/// The first few of some names, escaped.
pub(crate) fn listed(names: &[&str]) -> String {
    tensor::listed(names.iter().map(|name| escape(name)), SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_training_leaves_beside_the_weights_is_no_weight_file() {
        for name in ["pytorch_model.bin", "model.pt", "model.safetensors", "epoch=3.ckpt"] {
            assert!(is_weight_file(name.as_ref()), "{name}");
        }
        for name in [
            "optimizer.pt",
            "optimizer.bin",
            "scheduler.pt",
            "rng_state_0.pth",
            "training_args.bin",
            "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
            "config.json",
            "optimizer.safetensors",
            "model.safetensors.index.json",
        ] {
            assert!(!is_weight_file(name.as_ref()), "{name}");
        }
    }
}

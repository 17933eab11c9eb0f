//! Classifies the files in a model's directory by their names.

use std::ffi::OsStr;
use std::path::Path;

use crate::checkpoint::output::existing::PROVENANCE_FILE;
use crate::checkpoint::output::journal::{JOURNAL_FILE, NEW_JOURNAL_FILE};
use crate::checkpoint::side_files::tokenizer_files::is_tokenizer_file;

/// What a file is, as far as a child is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Written anew for every child, or by a merge.
    Own,
    /// Weights of any program, and states of training.
    Weights,
    /// Settings that point a loader to other weights than the child's.
    WeightSettings,
    /// Records of a training run.
    Record,
    /// Documentation.
    Document,
    /// Python code, which is copied when asked for.
    Python,
    /// Other code.
    Program,
    /// Hidden: the name begins with a dot.
    Hidden,
    /// A file of a tokenizer.
    Tokenizer,
    /// Licences and notices, which must accompany derived works.
    License,
    /// Anything else: taken for settings.
    Other,
}

/// Files that are written for each child, by this tool or by mergekit.
const OWN: [&str; 7] = [
    "config.json",
    PROVENANCE_FILE,
    "mergekit_config.yml",
    "mergekit_config.yaml",
    "mergekit_moe_config.yml",
    JOURNAL_FILE,
    NEW_JOURNAL_FILE,
];

/// Extensions of weights, and of archives and pickles that may hold weights.
const WEIGHTS: [&str; 40] = [
    "bin",
    "pt",
    "pth",
    "ckpt",
    "safetensors",
    "gguf",
    "ggml",
    "ggjt",
    "llamafile",
    "h5",
    "hdf5",
    "keras",
    "msgpack",
    "onnx",
    "onnx_data",
    "npz",
    "npy",
    "pb",
    "tflite",
    "mlmodel",
    "pdparams",
    "pdiparams",
    "pdmodel",
    "ot",
    "engine",
    "trt",
    "nemo",
    "distcp",
    "pkl",
    "pickle",
    "joblib",
    "mar",
    "zip",
    "tar",
    "gz",
    "tgz",
    "bz2",
    "xz",
    "zst",
    "7z",
];

/// Files that mislead a loader: it would load an adapter's base in place of the child, or look for
/// quantised weights.
const WEIGHT_SETTINGS: [&str; 5] = [
    "adapter_config.json",
    "quantize_config.json",
    "quant_config.json",
    "hf_quant_config.json",
    "quantization_config.json",
];

/// Files of transformers' Trainer and of DeepSpeed.
const RECORDS: [&str; 9] = [
    "trainer_state.json",
    "trainer_log.jsonl",
    "training_args.json",
    "all_results.json",
    "train_results.json",
    "eval_results.json",
    "predict_results.json",
    "latest",
    "latest_checkpointed_iteration.txt",
];

const DOCUMENTS: [&str; 18] = [
    "md", "markdown", "rst", "html", "htm", "pdf", "ipynb", "png", "jpg", "jpeg", "gif", "svg",
    "webp", "bmp", "ico", "mp4", "wav", "mp3",
];

const PROGRAMS: [&str; 24] = [
    "pyc", "pyi", "pyx", "so", "dll", "dylib", "exe", "a", "o", "sh", "bash", "bat", "ps1", "js",
    "mjs", "ts", "jar", "rb", "lua", "c", "cc", "cpp", "cu", "h",
];

/// Folders of a training run, a tool, or another program's copy of the model.
const FOLDERS: [&str; 15] = [
    "runs",
    "logs",
    "wandb",
    "mlruns",
    "tensorboard",
    "lightning_logs",
    "original",
    "onnx",
    "openvino",
    "coreml",
    "tflite",
    "gguf",
    "lost+found",
    "__pycache__",
    "__MACOSX",
];

/// The role of a file. `config.json` and the like are the model's own only at the top; in a folder
/// they are those of a module.
pub(super) fn role(name: &str, at_top: bool) -> Role {
    let lower = name.to_lowercase();
    let extension = Path::new(&lower).extension().and_then(OsStr::to_str).unwrap_or_default();
    if name.starts_with('.') {
        Role::Hidden
    } else if at_top && OWN.contains(&name) {
        Role::Own
    } else if lower.contains(".index.") || WEIGHT_SETTINGS.contains(&name) {
        Role::WeightSettings
    } else if WEIGHTS.contains(&extension) {
        Role::Weights
    } else if is_license(&lower) {
        Role::License
    } else if RECORDS.contains(&name) || lower.starts_with("events.out.") || extension == "log" {
        Role::Record
    } else if extension == "py" {
        Role::Python
    } else if PROGRAMS.contains(&extension) {
        Role::Program
    } else if DOCUMENTS.contains(&extension) || is_document(&lower) {
        Role::Document
    } else if is_tokenizer_file(name) {
        Role::Tokenizer
    } else {
        Role::Other
    }
}

/// Whether a name is like `LICENSE`, `LICENSE.txt`, `NOTICE` or `USE_POLICY.md`.
fn is_license(lower: &str) -> bool {
    let stem = lower.split('.').next().unwrap_or(lower);
    ["license", "licence", "copying", "notice", "use_policy"].iter().any(|word| {
        stem.strip_prefix(word).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
            || stem.strip_suffix(word).is_some_and(|rest| rest.ends_with(['-', '_']))
    })
}

fn is_document(lower: &str) -> bool {
    let stem = lower.split('.').next().unwrap_or(lower);
    ["readme", "changelog", "citation", "authors", "modelcard"].contains(&stem)
}

/// Whether a folder of this name is left out, whatever is in it.
pub(super) fn is_left_folder(name: &str) -> bool {
    name.starts_with('.')
        || FOLDERS.contains(&name)
        || ["checkpoint-", "checkpoint_", "global_step", "epoch_", "step_"]
            .iter()
            .any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_names() {
        for (names, expected) in [
            (
                &["config.json", "slerp_merge.json", "mergekit_config.yml", "journal.jsonl"][..],
                Role::Own,
            ),
            (
                &[
                    "pytorch_model.bin",
                    "model-00001-of-00002.safetensors",
                    "tf_model.h5",
                    "flax_model.msgpack",
                    "model.Q4_K_M.gguf",
                    "model.ONNX",
                    "optimizer.pt",
                    "training_args.bin",
                    "rng_state_0.pth",
                    "rust_model.ot",
                    "weights.npz",
                    "vocab.pkl",
                ],
                Role::Weights,
            ),
            (
                &[
                    "model.safetensors.index.json",
                    "pytorch_model.bin.index.fp16.json",
                    "tf_model.h5.index.json",
                    "adapter_config.json",
                    "hf_quant_config.json",
                ],
                Role::WeightSettings,
            ),
            (
                &["trainer_state.json", "latest", "events.out.tfevents.1700.host", "train.log"],
                Role::Record,
            ),
            (
                &[
                    "README.md",
                    "README",
                    "readme.txt",
                    "loss.png",
                    "CITATION.cff",
                    "modelcard.json",
                ],
                Role::Document,
            ),
            (
                &[
                    "LICENSE",
                    "LICENSE.txt",
                    "license.md",
                    "LICENSE-MIT",
                    "NOTICE",
                    "Notice.txt",
                    "USE_POLICY.md",
                    "COPYING",
                    "llama_license",
                ],
                Role::License,
            ),
            (&["modeling_own.py", "tokenization_own.py"], Role::Python),
            (&["build.sh", "kernel.cu", "lib.so"], Role::Program),
            (&[".gitattributes", ".DS_Store", "."], Role::Hidden),
            (
                &["tokenizer.json", "qwen.tiktoken", "source.spm", "chat_template.jinja"],
                Role::Tokenizer,
            ),
            (
                &[
                    "generation_config.json",
                    "preprocessor_config.json",
                    "modules.json",
                    "config_sentence_transformers.json",
                    "special.json",
                    "licensed_terms.json",
                    "label_mapping.csv",
                    "index.json",
                    "noticeable.txt",
                ],
                Role::Other,
            ),
        ] {
            for name in names {
                assert_eq!(role(name, true), expected, "{name}");
            }
        }
        assert_eq!(role("config.json", false), Role::Other);
    }

    #[test]
    fn folders_of_runs_and_other_programs_stay() {
        for name in
            [".git", ".cache", "runs", "checkpoint-500", "global_step10", "original", "onnx"]
        {
            assert!(is_left_folder(name), "{name}");
        }
        for name in ["1_Pooling", "additional_chat_templates", "voices", "checkpoints_info"] {
            assert!(!is_left_folder(name), "{name}");
        }
    }
}

//! Which files of a directory are a model's weights, by their names alone.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::checkpoint::side_file::is_present;
use crate::checkpoint::split::INDEX_FILE_NAME;
use crate::error::{Error, Kind, Result};

/// Weight file of an unsharded checkpoint.
pub(super) const SINGLE_FILE: &str = "pytorch_model.bin";

/// How the files begin that training programs leave beside the weights: the states of optimizer,
/// schedule, loss scale and random numbers, and the settings (transformers, accelerate, DeepSpeed).
const LEFTOVERS: [&str; 7] = [
    "optimizer",
    "scheduler",
    "scaler",
    "rng_state",
    "random_states",
    "training_args",
    "zero_pp_rank",
];

/// The weights of a directory.
pub(super) enum Weights {
    /// One file.
    Single(PathBuf),
    /// Shards, by their index.
    Index(PathBuf),
}

/// Which weights of a directory are taken: the order of transformers' `from_pretrained`, `.bin` only.
///
/// # Errors
/// [`Kind::NoInput`] where there are none, or several and none of a name that decides.
pub(super) fn weights_of(dir: &Path) -> Result<Weights> {
    let single = dir.join(SINGLE_FILE);
    if is_present(&single)? {
        return Ok(Weights::Single(single));
    }
    let index = dir.join(INDEX_FILE_NAME);
    if is_present(&index)? {
        return Ok(Weights::Index(index));
    }
    let entries = std::fs::read_dir(dir)
        .map_err(|error| Error::from_io(Kind::NoInput, "cannot list directory", dir, error))?;
    let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    let named = |wanted: fn(&OsStr) -> bool| {
        paths.iter().filter(move |path| path.file_name().is_some_and(wanted))
    };
    let mut candidates: Vec<&PathBuf> = named(is_weight_file).collect();
    candidates.sort();
    if let [only] = candidates.as_slice()
        && !only.file_name().is_some_and(is_shard)
    {
        return Ok(Weights::Single((*only).clone()));
    }
    let refusal = |found: &str| {
        Error::new(Kind::NoInput, "no checkpoint in this directory")
            .file(dir)
            .expected(format!("{SINGLE_FILE} or {INDEX_FILE_NAME}"), found)
    };
    if candidates.is_empty() {
        return Err(match named(is_safetensors).next() {
            Some(_) => refusal("only safetensors files").with_hint(
                "this tool reads .bin checkpoints; load the model in Python and save it with \
                 `save_pretrained(DIR, safe_serialization=False)` first",
            ),
            None if named(is_unfinished).next().is_some() => refusal("an unfinished download")
                .with_hint("the download was interrupted; let it finish, or start it again"),
            None => refusal("neither").with_hint(
                "name a model directory or a .bin, .pt, .pth or .ckpt file; \
                 `llm-slerp-merge find DIR` lists those below a directory",
            ),
        });
    }
    if candidates.iter().all(|path| path.file_name().is_some_and(is_shard)) {
        return Err(refusal(&format!("{} shards without their index", candidates.len()))
            .with_hint(format!("download {INDEX_FILE_NAME}, too")));
    }
    Err(refusal(&format!("{} other checkpoint files", candidates.len()))
        .with_hint("name one of the files instead of the directory"))
}

/// Whether a file of this name may hold a state dict.
pub(super) fn is_weight_file(name: &OsStr) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    matches!(extension, Some("bin" | "pt" | "pth" | "ckpt")) && !is_leftover(name)
}

/// Whether a file of this name holds safetensors.
pub(super) fn is_safetensors(name: &OsStr) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "safetensors")
}

/// Whether a file of this name is a download that goes on, as huggingface_hub, aria2, curl and
/// browsers call it.
fn is_unfinished(name: &OsStr) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    let known = ["incomplete", "aria2", "part", "partial", "crdownload", "download"];
    extension.is_some_and(|extension| known.contains(&extension))
}

/// Whether a name is that of one shard of several: `NAME-00001-of-00004.bin`.
pub(super) fn is_shard(name: &OsStr) -> bool {
    let Some(stem) = Path::new(name).file_stem().and_then(OsStr::to_str) else { return false };
    let mut parts = stem.rsplit('-');
    let number = |part: Option<&str>| {
        part.is_some_and(|part| part.len() >= 4 && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    number(parts.next()) && parts.next() == Some("of") && number(parts.next())
}

fn is_leftover(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    LEFTOVERS.iter().any(|start| name.starts_with(start)) || name.contains("optim_states")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_training_leaves_beside_the_weights_is_no_weight_file() {
        for name in ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "epoch=3.ckpt"] {
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
            "model.safetensors",
        ] {
            assert!(!is_weight_file(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn shards_are_known_by_their_numbers() {
        for name in ["pytorch_model-00001-of-00002.bin", "model-0003-of-0010.pt"] {
            assert!(is_shard(name.as_ref()), "{name}");
        }
        for name in ["pytorch_model.bin", "a-of-b.bin", "1-of-2.bin", "-of-.bin"] {
            assert!(!is_shard(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn a_directory_with_shards_and_no_index_says_so() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("pytorch_model-00001-of-00002.bin"), b"").expect("written");
        let Err(error) = weights_of(dir.path()) else { panic!("taken") };
        assert_eq!(error.kind(), Kind::NoInput);
        assert!(error.to_string().contains("1 shards without their index"), "{error}");
    }

    #[test]
    fn weights_whose_download_was_interrupted_are_missed_by_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let link = dir.path().join(SINGLE_FILE);
        std::os::unix::fs::symlink("../../blobs/absent", &link).expect("a link");
        let Err(error) = weights_of(dir.path()) else { panic!("taken") };
        assert_eq!(error.path(), Some(link.as_path()));
    }
}

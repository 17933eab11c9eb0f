//! Finds the weights of a directory, or says why it has none to take.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::checkpoint::files::paths::parent_of;
use crate::checkpoint::files::small_file::is_present;
use crate::checkpoint::weights::choice::{Choice, choose};
use crate::checkpoint::weights::kinds::{is_unfinished, listed};
use crate::checkpoint::weights::names::{WeightName, WeightNames, WeightRole};
use crate::error::{Error, Kind, Result};
use crate::format::WeightFormat;
use crate::tensor::{counted, escape};

/// The weights of a directory.
#[derive(Debug)]
pub(crate) struct Weights {
    /// The only file, or the index of several.
    pub(crate) file: PathBuf,
    /// Whether it is an index.
    pub(crate) is_index: bool,
    /// How the weight files of a child are named.
    pub(crate) names: WeightNames,
}

impl Weights {
    /// The directory and weights of an index; `None` where `path` is another file.
    pub(crate) fn by_index(path: &Path) -> Option<(PathBuf, Weights)> {
        let name = WeightName::parse(path.file_name()?.to_str()?)?;
        let weights = Weights { file: path.to_path_buf(), is_index: true, names: name.names };
        (name.role == WeightRole::Index).then(|| (parent_of(path), weights))
    }
}

/// Takes the weights of a directory as `from_pretrained` does, but `.bin` before safetensors.
///
/// # Errors
/// [`Kind::NoInput`] where there are none, or several and none of a name that decides;
/// [`Kind::Data`] where there are only parts of a model.
pub(crate) fn weights_of(dir: &Path) -> Result<Weights> {
    let entries = std::fs::read_dir(dir)
        .map_err(|error| Error::from_io(Kind::NoInput, "cannot list directory", dir, error))?;
    let names: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).collect();
    let texts: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
    let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
    let taken = match choose(&texts) {
        Choice::Taken(taken) => taken,
        Choice::Parts(parts) => return Err(parts.refusal(dir)),
        other => return Err(refusal(dir, &texts, &other)),
    };
    // The lossy text of a name that is not UTF-8 leads nowhere: go back to the name itself.
    let place = texts.iter().position(|name| *name == taken.file);
    let own = place.and_then(|place| names.get(place));
    let file = own.map_or_else(|| dir.join(taken.file), |own| dir.join(own));
    if !is_present(&file)? {
        return Err(refusal(dir, &texts, &Choice::Nothing));
    }
    Ok(Weights { file, is_index: taken.is_index, names: taken.names })
}

/// Why no weights are taken from a directory.
fn refusal(dir: &Path, names: &[&str], choice: &Choice<'_>) -> Error {
    let refused = |found: String| {
        let [bin, safetensors] = [WeightFormat::Bin, WeightFormat::Safetensors]
            .map(|format| WeightNames::default().single(format));
        let expected = format!("{bin}, {safetensors}, or the index of shards");
        Error::new(Kind::NoInput, "no checkpoint in this directory")
            .file(dir)
            .expected(expected, found)
    };
    match choice {
        Choice::Several(files, shards) => {
            let mut found = match files.as_slice() {
                [only] => format!("another checkpoint file, {}", escape(only)),
                _ => format!("{} checkpoints: {}", files.len(), listed(files)),
            };
            if *shards > 0 {
                let shards = counted(*shards as u64, "shard");
                found.push_str(&format!(", and {shards} without an index"));
            }
            let hint = match files.as_slice() {
                [only] => format!("name that file, if it is a whole model: {}", shown(dir, only)),
                [first, ..] => format!(
                    "name the one that is meant, if it is a whole model, e.g. {}",
                    shown(dir, first)
                ),
                [] => return refused(found),
            };
            refused(found).with_hint(hint)
        }
        Choice::Shards(shards) => {
            let index = shards.first().and_then(|name| WeightName::parse(name));
            let one = shards.len() == 1;
            let found = counted(shards.len() as u64, "shard");
            refused(format!("{found} without {} index", if one { "its" } else { "their" }))
                .with_hint(match index.map(WeightName::index) {
                    Some(index) => format!("{index} is missing: download it, too"),
                    None => "their index, a JSON file, is missing: download it, too".to_owned(),
                })
        }
        _ => nothing(dir, names, &refused),
    }
}

/// What a directory without weights holds instead.
fn nothing(dir: &Path, names: &[&str], refused: &dyn Fn(String) -> Error) -> Error {
    let any = |wanted: fn(&OsStr) -> bool| names.iter().any(|name| wanted(name.as_ref()));
    if any(is_unfinished) {
        return refused("an unfinished download".to_owned())
            .with_hint("the download was interrupted; let it finish, or start it again");
    }
    if names.iter().any(|name| name.contains("zero_pp_rank_")) {
        return refused("the partitions of DeepSpeed ZeRO".to_owned())
            .with_hint("join them first, with DeepSpeed's zero_to_fp32.py");
    }
    let inside: Vec<&str> =
        names.iter().copied().filter(|name| weights_of_folder(&dir.join(name))).collect();
    if names.contains(&"model_index.json") && !inside.is_empty() {
        return refused("a diffusers pipeline".to_owned())
            .with_hint(format!("merge its models one by one; they are in {}", listed(&inside)));
    }
    refused("none of them".to_owned()).with_hint(
        "name a model directory or a .bin, .safetensors, .pt, .pth or .ckpt file; \
         `llm-slerp-merge find DIR` lists those below a directory",
    )
}

/// Whether a folder of a pipeline has weights that can be merged.
fn weights_of_folder(dir: &Path) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .into_iter()
        .any(|entry| entry.file_name().to_str().and_then(WeightName::parse).is_some())
}

fn shown(dir: &Path, name: &str) -> String {
    escape(&dir.join(name).to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(files: &[&str]) -> (String, String) {
        let dir = tempfile::tempdir().expect("a directory");
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            std::fs::write(path, b"").expect("written");
        }
        let Err(error) = weights_of(dir.path()) else { panic!("taken") };
        let text = error.to_string();
        let found = text.split_once("found ").expect("what was found").1.to_owned();
        let own = dir.path().to_string_lossy().into_owned();
        (found, error.hint().unwrap_or_default().replace(&own, "DIR"))
    }

    #[test]
    fn a_directory_with_shards_and_no_index_says_so() {
        let shards =
            ["pytorch_model.fp16-00001-of-00002.bin", "pytorch_model.fp16-00002-of-00002.bin"];
        let (found, hint) = refused(&shards);
        assert_eq!(found, "2 shards without their index");
        assert_eq!(hint, "pytorch_model.bin.index.fp16.json is missing: download it, too");
        assert_eq!(refused(&["model-0001-of-0002.pt"]).0, "1 shard without its index");
    }

    #[test]
    fn of_several_checkpoints_each_is_named() {
        let (found, hint) = refused(&["pytorch_model.fp16.bin", "pytorch_model.ema.bin"]);
        assert_eq!(found, "2 checkpoints: pytorch_model.ema.bin, pytorch_model.fp16.bin");
        assert!(hint.ends_with("e.g. DIR/pytorch_model.ema.bin"), "{hint}");
        let (found, hint) = refused(&["a.pt", "pytorch_model-00001-of-00002.bin"]);
        assert_eq!(found, "another checkpoint file, a.pt, and 1 shard without an index");
        assert_eq!(hint, "name that file, if it is a whole model: DIR/a.pt");
    }

    #[test]
    fn what_is_no_model_by_itself_is_called_what_it_is() {
        let pipeline = ["model_index.json", "unet/diffusion_pytorch_model.bin", "scheduler/x.json"];
        let (found, hint) = refused(&pipeline);
        assert_eq!(found, "a diffusers pipeline");
        assert_eq!(hint, "merge its models one by one; they are in unet");
        let zero = ["zero_pp_rank_0_mp_rank_00_model_states.pt"];
        assert_eq!(refused(&zero).0, "the partitions of DeepSpeed ZeRO");
        assert_eq!(refused(&["config.json"]).0, "none of them");
    }

    #[test]
    fn weights_whose_download_was_interrupted_are_missed_by_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let link = dir.path().join("pytorch_model.bin");
        std::os::unix::fs::symlink("../../blobs/absent", &link).expect("a link");
        let Err(error) = weights_of(dir.path()) else { panic!("taken") };
        assert_eq!(error.path(), Some(link.as_path()));
    }
}

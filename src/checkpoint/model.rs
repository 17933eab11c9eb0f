//! A parent: a model directory or a single checkpoint file, opened by its headers only.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::checkpoint::adapter::AdapterConfig;
use crate::checkpoint::config::Config;
use crate::checkpoint::hub::locate;
use crate::checkpoint::inventory::{Inventory, TensorEntry};
use crate::checkpoint::side_file::{is_present, read_bounded};
use crate::checkpoint::source::FileSource;
use crate::checkpoint::split::INDEX_FILE_NAME;
use crate::checkpoint::strict::Strictness;
use crate::checkpoint::weights::{SINGLE_FILE, Weights, weights_of};
use crate::error::{Error, Kind, Result};
use crate::format::{self, Container, Index, MAX_INDEX_BYTES, ReadAt, StateDict};
use crate::tensor::escape;

/// What to do with a directory of an adapter whose weights are not read.
const ADAPTER_HINT: &str = "adapter_config.json says that this is an adapter; merge it into its base \
                            model first (PEFT: `merge_and_unload()`, then `save_pretrained(DIR, \
                            safe_serialization=False)`)";

/// An opened checkpoint: headers, config and the files behind them. No data is loaded.
#[derive(Debug)]
pub struct Checkpoint {
    /// Path as the user gave it, or where its name led.
    pub path: PathBuf,
    /// The model directory; `None` where a single file was named.
    pub dir: Option<PathBuf>,
    /// Weight files, in shard order.
    pub files: Vec<FileSource>,
    /// Container of each weight file.
    pub containers: Vec<Container>,
    /// Tensors of all files.
    pub inventory: Inventory,
    /// config.json, where the directory has one.
    pub config: Option<Config>,
    /// adapter_config.json beside the weights, where there is one.
    pub adapter: Option<AdapterConfig>,
    /// `total_parameters` of the index, where it has the figure.
    pub total_parameters: Option<u64>,
    /// Things worth telling the user, in sentences.
    pub notes: Vec<String>,
}

impl Checkpoint {
    /// Opens a model directory or a single checkpoint file, or a model of the local Hub cache by its
    /// name (see [`locate`]).
    ///
    /// # Errors
    /// [`Kind::NoInput`] where nothing is there, [`Kind::Data`] where it breaks a rule of its
    /// format or index and shards contradict each other.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        let path = locate(path)?;
        let path = path.as_path();
        let meta = std::fs::metadata(path)
            .map_err(|error| Error::from_io(Kind::NoInput, "cannot open model", path, error))?;
        if !meta.is_dir() {
            let mut checkpoint = Checkpoint::empty(path, None);
            checkpoint.adapter = AdapterConfig::beside(path);
            checkpoint.add_file(path)?;
            return Ok(checkpoint);
        }
        let mut checkpoint = Checkpoint::empty(path, Some(path.to_path_buf()));
        let config = path.join("config.json");
        if is_present(&config)? {
            checkpoint.config = Some(Config::read(&config)?);
        }
        checkpoint.adapter = AdapterConfig::inside(path);
        let weights = weights_of(path).map_err(|error| match checkpoint.adapter {
            Some(_) => error.with_hint(ADAPTER_HINT),
            None => error,
        })?;
        match weights {
            Weights::Single(file) => {
                checkpoint.add_file(&file)?;
            }
            Weights::Index(file) => checkpoint.open_shards(path, &file)?,
        }
        checkpoint.note_other_weights(path);
        Ok(checkpoint)
    }

    /// The same, refused where it is not as strict as asked for.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`]; [`Kind::Data`] for links that leave the directory and for bytes
    /// without a checksum.
    pub fn open_strictly(path: &Path, strictness: Strictness) -> Result<Checkpoint> {
        let checkpoint = Checkpoint::open(path)?;
        strictness.check(&checkpoint)?;
        Ok(checkpoint)
    }

    /// A checkpoint of which nothing is known yet.
    pub(super) fn empty(path: &Path, dir: Option<PathBuf>) -> Checkpoint {
        Checkpoint {
            path: path.to_path_buf(),
            dir,
            files: Vec::new(),
            containers: Vec::new(),
            inventory: Inventory::default(),
            config: None,
            adapter: None,
            total_parameters: None,
            notes: Vec::new(),
        }
    }

    fn add_file(&mut self, path: &Path) -> Result<()> {
        let (source, state_dict) = read_headers(path)?;
        let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(nest) = &state_dict.nest {
            self.notes.push(format!(
                "the state dict of `{}` is its entry `{}`",
                escape(&file_name),
                escape(nest)
            ));
        }
        if !state_dict.skipped.is_empty() {
            let mut names: Vec<String> =
                state_dict.skipped.iter().take(8).map(|name| escape(name)).collect();
            if state_dict.skipped.len() > names.len() {
                names.push(format!("{} more", state_dict.skipped.len() - names.len()));
            }
            self.notes.push(format!(
                "entries of `{}` that are no tensors are left out: {}",
                escape(&file_name),
                names.join(", ")
            ));
        }
        self.push(source, state_dict);
        Ok(())
    }

    /// Takes in one file.
    pub(super) fn push(&mut self, source: FileSource, state_dict: StateDict) {
        self.containers.push(state_dict.container);
        self.inventory.append(self.files.len(), state_dict);
        self.files.push(source);
    }

    fn open_shards(&mut self, dir: &Path, index_path: &Path) -> Result<()> {
        let bytes = read_bounded(index_path, MAX_INDEX_BYTES)?;
        let index = Index::parse(&bytes).map_err(|error| Error::from_format(index_path, error))?;
        let mut shards: Vec<&str> = index.weight_map.iter().map(|entry| entry.1.as_str()).collect();
        shards.sort_unstable();
        shards.dedup();
        let names = index.weight_map.iter().map(|entry| (entry.0.as_str(), None));
        let mut found: Found<'_> = names.collect();
        for shard in &shards {
            let path = dir.join(shard);
            if !path.exists() {
                return Err(missing_shard(index_path, &path, shards.len()));
            }
            let before = self.inventory.tensors.len();
            self.add_file(&path)?;
            let tensors = &self.inventory.tensors[before..];
            check_shard(&path, tensors, self.files.len() - 1, &mut found)?;
        }
        check_index(index_path, &index, &found, self)?;
        self.total_parameters = index.total_parameters;
        self.inventory.restore_model_order();
        Ok(())
    }

    /// Other weights beside those that were taken are named, so that nobody merges the wrong ones.
    fn note_other_weights(&mut self, dir: &Path) {
        let taken = &self.files;
        let others: Vec<String> =
            [SINGLE_FILE, INDEX_FILE_NAME, "model.safetensors", "model.safetensors.index.json"]
                .into_iter()
                .filter(|name| dir.join(name).exists())
                .filter(|name| !taken.iter().any(|file| file.path() == dir.join(name)))
                .filter(|name| {
                    *name != INDEX_FILE_NAME
                        || taken.iter().any(|file| file.path() == dir.join(SINGLE_FILE))
                })
                .map(str::to_owned)
                .collect();
        if !others.is_empty() {
            let used: Vec<String> = taken
                .iter()
                .take(3)
                .map(|file| {
                    file.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
                })
                .collect();
            self.notes.push(format!(
                "{} used; not looked at: {}",
                used.join(", "),
                others.join(", ")
            ));
        }
    }

    /// Checks that no weight file changed since it was opened.
    ///
    /// # Errors
    /// [`Kind::TryAgain`] where one did.
    pub fn check_unchanged(&self) -> Result<()> {
        self.files.iter().try_for_each(FileSource::check_unchanged)
    }

    /// Bytes of all weight files.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(ReadAt::len).fold(0, u64::saturating_add)
    }

    /// The file that holds a tensor of the inventory.
    pub fn file_of(&self, name: &str) -> Option<&Path> {
        let tensor = self.inventory.find(name)?;
        self.files.get(self.inventory.file_of(tensor)).map(FileSource::path)
    }
}

/// Opens one weight file and reads its headers.
pub(super) fn read_headers(path: &Path) -> Result<(FileSource, StateDict)> {
    let source = FileSource::open(path)?;
    match format::read_state_dict(&source) {
        Ok(state_dict) => Ok((source, state_dict)),
        Err(error) if error.rule == format::Rule::Read => {
            let cause = error.source.unwrap_or_else(|| std::io::Error::other("read failed"));
            Err(source.read_error("cannot read checkpoint", cause))
        }
        Err(error) => Err(Error::from_format(path, error)),
    }
}

pub(super) fn missing_shard(index_path: &Path, shard: &Path, shards: usize) -> Error {
    Error::new(Kind::NoInput, "a shard is missing")
        .file(index_path)
        .expected(
            format!("{shards} shards beside the index"),
            format!("no `{}`", shard.file_name().unwrap_or_default().to_string_lossy()),
        )
        .with_hint("download that shard again")
}

/// Of each name that the index maps, the position of the file that holds it, once one was met.
type Found<'i> = HashMap<&'i str, Option<usize>>;

/// Each tensor of the shard just read, the file at that position, must be one that the index maps,
/// once.
fn check_shard(
    shard: &Path,
    tensors: &[TensorEntry],
    position: usize,
    found: &mut Found<'_>,
) -> Result<()> {
    for tensor in tensors {
        let earlier = found.get_mut(tensor.name.as_str()).map(|file| file.replace(position));
        if matches!(earlier, Some(Some(_))) {
            return Err(Error::new(Kind::Data, "a tensor is in two shards")
                .file(shard)
                .tensor(&tensor.name)
                .expected("each tensor once", "another copy in an earlier shard"));
        }
        if earlier.is_none() {
            return Err(Error::new(
                Kind::Data,
                "a shard holds a tensor that the index does not map",
            )
            .file(shard)
            .tensor(&tensor.name)
            .expected(format!("an entry in {}", INDEX_FILE_NAME), "none")
            .with_hint("index and shards are from different saves; download both again"));
        }
    }
    Ok(())
}

/// Each name of the index must be in a shard; one in another shard than the index says is noted.
fn check_index(
    index_path: &Path,
    index: &Index,
    found: &Found<'_>,
    checkpoint: &mut Checkpoint,
) -> Result<()> {
    let mut elsewhere = 0usize;
    for (name, shard) in &index.weight_map {
        let expected = index_path.with_file_name(shard);
        match found.get(name.as_str()).copied().flatten() {
            None => {
                return Err(Error::new(Kind::Data, "a shard lacks a tensor that the index names")
                    .file(&expected)
                    .tensor(name)
                    .expected("the tensor in this shard", "no such name in any shard")
                    .with_hint("index and shards are from different saves; download both again"));
            }
            Some(file) => {
                if checkpoint.files.get(file).is_some_and(|source| source.path() != expected) {
                    elsewhere += 1;
                }
            }
        }
    }
    if elsewhere > 0 {
        checkpoint.notes.push(format!(
            "the index names the wrong shard for {elsewhere} tensors; found all the same"
        ));
    }
    Ok(())
}

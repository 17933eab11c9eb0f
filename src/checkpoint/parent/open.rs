//! Opens a parent by its headers, and stops at the first error.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::checkpoint::files::paths::file_name;
use crate::checkpoint::files::small_file::{is_present, read_bounded};
use crate::checkpoint::files::source::FileSource;
use crate::checkpoint::parent::checkpoint::Checkpoint;
use crate::checkpoint::parent::hub::{file_and_key, locate};
use crate::checkpoint::parent::leftovers::notes;
use crate::checkpoint::parent::shards::{Shards, missing_shard};
use crate::checkpoint::parent::strictness::Opening;
use crate::checkpoint::side_files::adapter::AdapterConfig;
use crate::checkpoint::side_files::config::Config;
use crate::checkpoint::weights::choice::not_taken;
use crate::checkpoint::weights::directory::{Weights, weights_of};
use crate::checkpoint::weights::kinds::listed;
use crate::checkpoint::weights::parts::Parts;
use crate::error::{Error, Kind, Result};
use crate::format::WeightFormat;
use crate::format::{Index, MAX_INDEX_BYTES, ReadOptions, StateDict, read_state_dict};
use crate::tensor::escape;

/// Advice for the directory of an adapter whose weights can't be read.
const ADAPTER_HINT: &str = "adapter_config.json says that this is an adapter; merge it into its base \
                            model first (PEFT: `merge_and_unload()`, then `save_pretrained(DIR, \
                            safe_serialization=False)`)";

impl Checkpoint {
    /// Opens a model directory, the index of its shards or a single checkpoint file, or a model of
    /// the local Hub cache by its name (see [`locate`]).
    ///
    /// # Errors
    /// [`Kind::NoInput`] where nothing is there, [`Kind::Data`] where it breaks a rule of its
    /// format, index and shards contradict each other or the directory holds parts of a model.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        Checkpoint::open_as(path, &Opening::default())
    }

    /// Like [`Checkpoint::open`], with options. The path may be `FILE::KEY`, or `DIR::KEY` where
    /// the weights are one file: then the state dict is that entry.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`]; [`Kind::NoInput`] where there is no such entry,
    /// [`Kind::Data`] for links that leave the directory and bytes without a checksum where those
    /// are refused.
    pub fn open_as(path: &Path, opening: &Opening) -> Result<Checkpoint> {
        let (path, key) = file_and_key(&locate(path)?);
        let reading = ReadOptions { key, opaque: opening.opaque.clone() };
        let checkpoint = Checkpoint::read(&path, reading)?;
        opening.strictness.check(&checkpoint)?;
        Ok(checkpoint)
    }

    fn read(path: &Path, reading: ReadOptions) -> Result<Checkpoint> {
        let Some((dir, index)) = directory_of(path)? else {
            let mut checkpoint = Checkpoint { reading, ..Checkpoint::empty(path, None) };
            checkpoint.adapter = AdapterConfig::beside(path);
            checkpoint.add_file(path)?;
            checkpoint.restore_order();
            checkpoint.part = Parts::at(path);
            return Ok(checkpoint);
        };
        let mut checkpoint = Checkpoint { reading, ..Checkpoint::empty(path, Some(dir.clone())) };
        let config = dir.join("config.json");
        if is_present(&config)? {
            let read = Config::read(&config)?;
            checkpoint.special_tokens.add(read.text()).map_err(|error| error.file(&config))?;
            checkpoint.config = Some(read);
        }
        checkpoint.special_tokens.add_generation_config(&dir)?;
        checkpoint.adapter = AdapterConfig::inside(&dir);
        let weights =
            index.map_or_else(|| weights_of(&dir), Ok).map_err(|error| {
                match checkpoint.adapter {
                    Some(_) => error.with_hint(ADAPTER_HINT),
                    None => error,
                }
            })?;
        checkpoint.names = weights.names;
        if weights.is_index {
            no_key(&weights.file, &checkpoint.reading)?;
            checkpoint.open_shards(&dir, &weights.file)?;
        } else {
            checkpoint.add_file(&weights.file)?;
            checkpoint.part = Parts::at(&weights.file);
        }
        checkpoint.restore_order();
        checkpoint.note_other_weights(&dir, &weights);
        Ok(checkpoint)
    }

    fn add_file(&mut self, path: &Path) -> Result<()> {
        let (source, state_dict) = read_headers(path, &self.reading)?;
        self.notes.extend(notes(&file_name(path), &state_dict));
        self.push(source, state_dict);
        Ok(())
    }

    fn open_shards(&mut self, dir: &Path, index_path: &Path) -> Result<()> {
        let index = read_index(index_path)?;
        let shards = shards_of(&index);
        let mut comparison = Shards::new(index_path, &index);
        for shard in &shards {
            let path = dir.join(shard);
            if !path.exists() {
                return Err(missing_shard(index_path, &path, shards.len()));
            }
            let before = self.inventory.tensors.len();
            self.add_file(&path)?;
            comparison.check(&self.files, &self.inventory, before)?;
        }
        comparison.finish(&self.files, &mut self.inventory, &mut self.notes)?;
        self.total_parameters = index.total_parameters;
        Ok(())
    }

    fn restore_order(&mut self) {
        match self.format() {
            WeightFormat::Bin => self.inventory.restore_model_order(),
            WeightFormat::Safetensors => self.inventory.order_by_names(),
        }
    }

    /// Names weights beside those that were taken, so that nobody merges the wrong ones.
    fn note_other_weights(&mut self, dir: &Path, weights: &Weights) {
        let used = file_name(&weights.file);
        let files = self.files.iter().map(|file| file_name(file.path()));
        let others = other_weights(dir, &files.chain([used.clone()]).collect());
        if !others.is_empty() {
            let others: Vec<&str> = others.iter().map(String::as_str).collect();
            self.notes.push(format!("{} used; not looked at: {}", escape(&used), listed(&others)));
        }
    }
}

/// The model directory that a path leads to, and the weights where it leads there by their index;
/// `None` for a single weight file.
///
/// # Errors
/// [`Kind::NoInput`] where nothing is there.
pub(crate) fn directory_of(path: &Path) -> Result<Option<(PathBuf, Option<Weights>)>> {
    let meta = std::fs::metadata(path)
        .map_err(|error| Error::from_io(Kind::NoInput, "cannot open model", path, error))?;
    if meta.is_dir() {
        return Ok(Some((path.to_path_buf(), None)));
    }
    Ok(Weights::by_index(path).map(|(dir, weights)| (dir, Some(weights))))
}

/// Opens one weight file and reads its headers.
pub(crate) fn read_headers(path: &Path, reading: &ReadOptions) -> Result<(FileSource, StateDict)> {
    let source = FileSource::open(path)?;
    match read_state_dict(&source, reading) {
        Ok(state_dict) => Ok((source, state_dict)),
        Err(error) => Err(source.format_error(error)),
    }
}

/// Refuses a key for a model in shards: a key chooses an entry of one file.
///
/// # Errors
/// [`Kind::Data`] where there is a key.
pub(crate) fn no_key(index_path: &Path, reading: &ReadOptions) -> Result<()> {
    let Some(key) = &reading.key else { return Ok(()) };
    Err(Error::new(Kind::Data, "a key chooses an entry of one file")
        .file(index_path)
        .expected("one weight file", format!("shards, and the key `{}`", escape(key)))
        .with_hint("name the model without the key"))
}

/// Reads the index of a model in shards.
///
/// # Errors
/// Those of [`read_bounded`]; [`Kind::Data`] where it is no index.
pub(crate) fn read_index(path: &Path) -> Result<Index> {
    let bytes = read_bounded(path, MAX_INDEX_BYTES)?;
    Index::parse(&bytes).map_err(|error| Error::from_format(path, error))
}

/// The shards that an index names, sorted.
pub(crate) fn shards_of(index: &Index) -> Vec<&str> {
    let mut shards: Vec<&str> = index.weight_map.iter().map(|entry| entry.1.as_str()).collect();
    shards.sort_unstable();
    shards.dedup();
    shards
}

/// Weight files in a directory other than those `taken`; none where it can't be listed.
pub(crate) fn other_weights(dir: &Path, taken: &HashSet<String>) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let others = not_taken(&names, &|name| taken.contains(name));
    others.into_iter().map(str::to_owned).collect()
}

//! `Checkpoint`: an opened parent, a model directory or a single checkpoint file, with everything
//! but its data.

use std::path::{Path, PathBuf};

use crate::checkpoint::files::source::FileSource;
use crate::checkpoint::side_files::adapter::AdapterConfig;
use crate::checkpoint::side_files::config::Config;
use crate::checkpoint::side_files::special_tokens::SpecialTokens;
use crate::checkpoint::side_files::words::vocabulary::Vocabulary;
use crate::checkpoint::tensors::inventory::Inventory;
use crate::checkpoint::weights::names::WeightNames;
use crate::checkpoint::weights::parts::Parts;
use crate::error::Result;
use crate::format::{Container, ReadAt, ReadOptions, StateDict};

/// An opened checkpoint: its headers, config and files. No data is loaded.
#[derive(Debug)]
pub struct Checkpoint {
    /// Path as the user gave it, or where the name in the Hub's cache led.
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
    /// Ids of special tokens in config.json and generation_config.json.
    pub special_tokens: SpecialTokens,
    /// The words of its rows, once [`Checkpoint::read_vocabulary`] has read them.
    pub vocabulary: Vocabulary,
    /// adapter_config.json beside the weights, where there is one.
    pub adapter: Option<AdapterConfig>,
    /// `total_parameters` of the index, where it has the figure.
    pub total_parameters: Option<u64>,
    /// Remarks for the user, as sentences.
    pub notes: Vec<String>,
    /// How its files are read: which entry is the state dict, and what may be beside it.
    pub reading: ReadOptions,
    /// How its weight files are named.
    pub names: WeightNames,
    /// The parts that it is one of, where it is no whole model.
    pub part: Option<Parts>,
}

impl Checkpoint {
    /// A checkpoint without any files yet.
    pub(crate) fn empty(path: &Path, dir: Option<PathBuf>) -> Checkpoint {
        Checkpoint {
            path: path.to_path_buf(),
            dir,
            files: Vec::new(),
            containers: Vec::new(),
            inventory: Inventory::default(),
            config: None,
            special_tokens: SpecialTokens::default(),
            vocabulary: Vocabulary::default(),
            adapter: None,
            total_parameters: None,
            notes: Vec::new(),
            reading: ReadOptions::default(),
            names: WeightNames::default(),
            part: None,
        }
    }

    /// Adds a file.
    pub(crate) fn push(&mut self, source: FileSource, state_dict: StateDict) {
        self.containers.push(state_dict.container);
        self.inventory.append(self.files.len(), state_dict);
        self.files.push(source);
    }

    /// Reads the words of its rows from the tokenizer files beside the weights; a single file has none.
    ///
    /// # Errors
    /// Those of [`Vocabulary::read`].
    pub fn read_vocabulary(&mut self) -> Result<()> {
        if let Some(dir) = &self.dir {
            self.vocabulary = Vocabulary::read(dir)?;
        }
        Ok(())
    }

    /// Checks that no weight file has changed since it was opened.
    ///
    /// # Errors
    /// [`Kind::TryAgain`](crate::error::Kind::TryAgain) where one did.
    pub fn check_unchanged(&self) -> Result<()> {
        self.files.iter().try_for_each(FileSource::check_unchanged)
    }

    /// Total length of the weight files in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(ReadAt::len).fold(0, u64::saturating_add)
    }
}

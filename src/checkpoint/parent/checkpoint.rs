//! `Checkpoint`: an opened parent, a model directory or a single checkpoint file, with everything
//! but its data.

use std::collections::HashSet;
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
use crate::format::WeightFormat;
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

    /// The second parent of a model that is written anew: it has no files and no tensors.
    pub fn none(path: &Path) -> Checkpoint {
        Checkpoint::empty(path, None)
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

    /// The format of its weight files; [`WeightFormat::Bin`] where only some are safetensors.
    pub fn format(&self) -> WeightFormat {
        let safetensors = |container: &Container| *container == Container::Safetensors;
        match self.containers.is_empty() || !self.containers.iter().all(safetensors) {
            true => WeightFormat::Bin,
            false => WeightFormat::Safetensors,
        }
    }

    /// Positions of its tensors in the model's order, as far as files, names and `other`, another
    /// checkpoint of the model, tell it: `partners[i]` is the position of tensor i there. safetensors have
    /// no order of their own, so that of `.bin` files decides where `other` has them.
    pub(crate) fn order_beside(
        &self,
        other: &Checkpoint,
        partners: &[Option<usize>],
    ) -> Vec<usize> {
        match (self.format(), other.format()) {
            (WeightFormat::Bin, WeightFormat::Bin) => self.inventory.order_beside(partners),
            (WeightFormat::Bin, WeightFormat::Safetensors) => self.inventory.order_beside(&[]),
            (WeightFormat::Safetensors, WeightFormat::Bin) => in_order_of(partners),
            (WeightFormat::Safetensors, WeightFormat::Safetensors) => (0..partners.len()).collect(),
        }
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

/// Positions in the order of their partners. One without a partner, or whose partner another one has,
/// stays behind the one before it.
fn in_order_of(partners: &[Option<usize>]) -> Vec<usize> {
    let mut taken = HashSet::new();
    let mut behind = None;
    let mut keys: Vec<(Option<usize>, usize)> = Vec::with_capacity(partners.len());
    for (position, partner) in partners.iter().enumerate() {
        if let Some(partner) = partner.filter(|partner| taken.insert(*partner)) {
            behind = Some(partner);
        }
        keys.push((behind, position));
    }
    keys.sort_unstable();
    keys.into_iter().map(|key| key.1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_partner_stays_behind_its_neighbour() {
        let order = |partners: &[Option<usize>]| in_order_of(partners);
        assert_eq!(order(&[Some(2), Some(0), Some(1)]), [1, 2, 0]);
        assert_eq!(order(&[None, Some(3), None, Some(1), None]), [0, 3, 4, 1, 2]);
        // A head that has the embedding's partner.
        assert_eq!(order(&[Some(0), Some(2), Some(1), Some(0)]), [0, 2, 3, 1]);
        assert_eq!(order(&[None, None]), [0, 1]);
    }
}

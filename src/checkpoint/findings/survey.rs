//! Opens a checkpoint to be checked: collects everything that is wrong with its headers, index and
//! side files, where [`Checkpoint::open`] stops at the first error.

use std::collections::HashSet;
use std::path::Path;

use crate::checkpoint::files::paths::file_name;
use crate::checkpoint::files::small_file::is_present;
use crate::checkpoint::findings::finding::Finding;
use crate::checkpoint::findings::shards::compare;
use crate::checkpoint::parent::checkpoint::Checkpoint;
use crate::checkpoint::parent::hub::{file_and_key, locate};
use crate::checkpoint::parent::leftovers::opaque_values;
use crate::checkpoint::parent::open::{
    directory_of, no_key, other_weights, read_headers, read_index, shards_of,
};
use crate::checkpoint::parent::shards::missing_shard;
use crate::checkpoint::parent::strictness::{Opening, Strictness, links_out};
use crate::checkpoint::side_files::adapter::AdapterConfig;
use crate::checkpoint::side_files::config::Config;
use crate::checkpoint::side_files::tokenizer::TokenizerFacts;
use crate::checkpoint::weights::directory::{Weights, weights_of};
use crate::checkpoint::weights::parts::Parts;
use crate::error::{Error, Result};
use crate::format::{Container, ReadOptions};
use crate::tensor::DType;

/// What could be opened of a checkpoint, and what was found.
#[derive(Debug)]
pub struct Survey {
    /// The files that could be opened, with all their tensors.
    pub checkpoint: Checkpoint,
    /// What was found, in the order of reading.
    pub findings: Vec<Finding>,
    /// The tokenizer; none for a single file.
    pub tokenizer: TokenizerFacts,
    strictness: Strictness,
}

/// A tensor with one row per token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Its name.
    pub tensor: String,
    /// Its first dimension.
    pub rows: u64,
}

impl Survey {
    /// Opens all that can be opened of a model directory or a single file. Reads no tensor data.
    pub fn of(path: &Path, opening: &Opening) -> Survey {
        let strictness = opening.strictness;
        let mut survey = Survey {
            checkpoint: Checkpoint::empty(path, None),
            findings: Vec::new(),
            tokenizer: TokenizerFacts::default(),
            strictness,
        };
        let Some(path) = survey.accept(locate(path)) else { return survey };
        let (path, key) = file_and_key(&path);
        survey.checkpoint.reading = ReadOptions { key, opaque: opening.opaque.clone() };
        match survey.accept(directory_of(&path)) {
            Some(Some((dir, weights))) => survey.open_directory(&dir, weights),
            Some(None) => {
                survey.checkpoint.adapter = AdapterConfig::beside(&path);
                survey.open_file(&path);
                survey.check_parts(&path);
            }
            None => return survey,
        }
        if strictness.no_follow {
            let home = survey.checkpoint.dir.clone().unwrap_or(path);
            let links = survey.accept(links_out(&home)).unwrap_or_default();
            links.iter().for_each(|error| survey.refuse(error));
        }
        survey
    }

    /// Compares rows with config.json and the tokenizer. The first of `rows` is the input
    /// embedding; the others are heads.
    pub fn check_vocabulary(&mut self, rows: &[Rows]) {
        if self.checkpoint.dir.is_none() || self.checkpoint.files.is_empty() {
            return;
        }
        let Some(embedding) = rows.first() else {
            self.findings.push(Finding::NoEmbedding);
            return;
        };
        let config = self.checkpoint.config.as_ref();
        if let Some(vocab_size) = config.and_then(|config| config.facts().vocab_size) {
            let wrong = rows.iter().filter(|rows| rows.rows != vocab_size);
            self.findings.extend(wrong.map(|rows| Finding::VocabSize {
                tensor: rows.tensor.clone(),
                vocab_size,
                rows: rows.rows,
            }));
        }
        match &self.tokenizer.highest {
            Some(highest) if highest.id >= embedding.rows => {
                let file = highest.file.clone();
                let (id, rows) = (highest.id, embedding.rows);
                self.findings.push(Finding::TokenId { file, id, rows });
            }
            _ => {}
        }
    }

    fn refuse(&mut self, error: &Error) {
        self.findings.push(Finding::refused(error));
    }

    fn accept<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.refuse(&error)).ok()
    }

    /// Opens the weights given, else those that a merge would take.
    fn open_directory(&mut self, dir: &Path, weights: Option<Weights>) {
        self.checkpoint.dir = Some(dir.to_path_buf());
        self.checkpoint.adapter = AdapterConfig::inside(dir);
        let config = dir.join("config.json");
        match self.accept(is_present(&config)) {
            Some(true) => self.checkpoint.config = self.accept(Config::read(&config)),
            Some(false) => self.findings.push(Finding::NoConfig),
            None => {}
        }
        let generation = self.checkpoint.special_tokens.add_generation_config(dir);
        self.accept(generation);
        let mut taken = HashSet::new();
        let weights = weights.map_or_else(|| weights_of(dir), Ok);
        if let Some(weights) = self.accept(weights) {
            taken.insert(file_name(&weights.file));
            if weights.is_index {
                if self.accept(no_key(&weights.file, &self.checkpoint.reading)).is_none() {
                    self.checkpoint.reading.key = None;
                }
                self.open_shards(dir, &weights.file, &mut taken);
            } else {
                self.open_file(&weights.file);
                self.check_parts(&weights.file);
            }
        }
        let files = other_weights(dir, &taken);
        if !files.is_empty() {
            self.findings.push(Finding::OtherWeights { files });
        }
        self.compare_dtypes();
        let (tokenizer, errors) = TokenizerFacts::read_whole(dir);
        if tokenizer.is_empty() && errors.is_empty() {
            self.findings.push(Finding::NoTokenizer);
        }
        errors.iter().for_each(|error| self.refuse(error));
        self.tokenizer = tokenizer;
    }

    fn open_file(&mut self, path: &Path) {
        let headers = read_headers(path, &self.checkpoint.reading);
        let Some((source, state_dict)) = self.accept(headers) else { return };
        let file = file_name(path);
        if let Some(key) = &state_dict.nest {
            self.findings.push(Finding::Nested { file: file.clone(), key: key.clone() });
        }
        if !state_dict.skipped.is_empty() {
            let keys = state_dict.skipped.clone();
            self.findings.push(Finding::Skipped { file: file.clone(), keys });
        }
        if !state_dict.opaque.is_empty() {
            let values = opaque_values(&state_dict.opaque);
            self.findings.push(Finding::Opaque { file: file.clone(), values });
        }
        let refused = self.strictness.require_checksums;
        self.findings.extend(match state_dict.container {
            Container::Zip => None,
            Container::Legacy => Some(Finding::Legacy { file, refused }),
            Container::Safetensors => Some(Finding::Safetensors { file, refused }),
        });
        self.checkpoint.push(source, state_dict);
    }

    /// Refuses a file that holds only part of a model, unless it is a shard: one may be checked
    /// alone.
    fn check_parts(&mut self, file: &Path) {
        match Parts::at(file) {
            Some(part) if part.is_shard() => {
                self.findings.push(Finding::OneShard { file: file_name(file) });
            }
            Some(part) => self.refuse(&part.refusal(file)),
            None => {}
        }
    }

    fn open_shards(&mut self, dir: &Path, index_path: &Path, taken: &mut HashSet<String>) {
        let Some(index) = self.accept(read_index(index_path)) else { return };
        let shards = shards_of(&index);
        let mut unopened = HashSet::new();
        for shard in &shards {
            taken.insert((*shard).to_owned());
            let path = dir.join(shard);
            let before = self.checkpoint.files.len();
            if path.exists() {
                self.open_file(&path);
            } else {
                self.refuse(&missing_shard(index_path, &path, shards.len()));
            }
            if self.checkpoint.files.len() == before {
                unopened.insert(*shard);
            }
        }
        let (files, inventory) = (&self.checkpoint.files, &self.checkpoint.inventory);
        let found = compare(&index, index_path, (files, inventory), &unopened);
        let found = self.accept(found).unwrap_or_default();
        self.findings.extend(found);
        self.checkpoint.total_parameters = index.total_parameters;
    }

    /// Notes a dtype in config.json that no tensor has.
    fn compare_dtypes(&mut self) {
        let config = self.checkpoint.config.as_ref();
        let Some(said) = config.and_then(|config| config.facts().dtype.clone()) else { return };
        let floating = || {
            let tensors = self.checkpoint.inventory.tensors.iter();
            tensors.filter(|tensor| tensor.dtype.is_floating())
        };
        if floating().any(|tensor| tensor.dtype.name() == said) {
            return;
        }
        if let Some(largest) = floating().max_by_key(|tensor| tensor.layout.numel()) {
            let tensors: DType = largest.dtype;
            self.findings.push(Finding::ConfigDType { config: said, tensors });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::side_files::tokenizer::HighestId;
    use crate::error::Kind;

    const PRIMARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/llama/primary");

    fn rows(rows: [u64; 2]) -> [Rows; 2] {
        let [embedding, head] = rows;
        [("embed", embedding), ("lm_head", head)]
            .map(|(name, rows)| Rows { tensor: name.to_owned(), rows })
    }

    #[test]
    fn a_whole_model_is_opened_without_a_finding() {
        let mut survey = Survey::of(Path::new(PRIMARY), &Opening::default());
        survey.check_vocabulary(&rows([512, 512]));
        assert_eq!(survey.findings, []);
        assert_eq!(survey.checkpoint.inventory.tensors.len(), 21);
        assert!(!survey.tokenizer.is_empty());
    }

    #[test]
    fn rows_are_compared_with_config_and_tokenizer() {
        let mut survey = Survey::of(Path::new(PRIMARY), &Opening::default());
        survey.tokenizer.highest = Some(HighestId { id: 512, file: "vocab.json".to_owned() });
        survey.check_vocabulary(&rows([512, 513]));
        let vocab_size =
            Finding::VocabSize { tensor: "lm_head".into(), vocab_size: 512, rows: 513 };
        let token = Finding::TokenId { file: "vocab.json".into(), id: 512, rows: 512 };
        assert_eq!(survey.findings, [vocab_size, token]);
    }

    #[test]
    fn a_model_without_an_embedding_is_not_compared() {
        let mut survey = Survey::of(Path::new(PRIMARY), &Opening::default());
        survey.check_vocabulary(&[]);
        assert_eq!(survey.findings, [Finding::NoEmbedding]);
    }

    #[test]
    fn nothing_at_all_is_one_finding() {
        let survey = Survey::of(&Path::new(PRIMARY).join("absent"), &Opening::default());
        let kinds: Vec<_> = survey.findings.iter().map(Finding::kind).collect();
        assert_eq!(kinds, [Some(Kind::NoInput)]);
        let empty = tempfile::tempdir().expect("a directory");
        let kinds: Vec<_> = Survey::of(empty.path(), &Opening::default())
            .findings
            .iter()
            .map(Finding::kind)
            .collect();
        // No config, no weights, no tokenizer.
        assert_eq!(kinds, [None, Some(Kind::NoInput), None]);
    }

    #[test]
    fn a_config_of_another_dtype_is_noted() {
        let mut survey = Survey::of(Path::new(PRIMARY), &Opening::default());
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("config.json");
        std::fs::write(&path, r#"{"torch_dtype": "bfloat16"}"#).expect("written");
        survey.checkpoint.config = Some(Config::read(&path).expect("a config"));
        survey.compare_dtypes();
        let found = Finding::ConfigDType { config: "bfloat16".into(), tensors: DType::Float16 };
        assert_eq!(survey.findings, [found]);
    }
}

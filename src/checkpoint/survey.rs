//! A checkpoint opened to be checked: everything that its headers, index and side files tell, and
//! everything that is wrong with them. [`Checkpoint::open`] stops at the first error; this goes on.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::checkpoint::adapter::AdapterConfig;
use crate::checkpoint::config::Config;
use crate::checkpoint::finding::Finding;
use crate::checkpoint::hub::locate;
use crate::checkpoint::model::{Checkpoint, missing_shard, read_headers};
use crate::checkpoint::side_file::{is_present, read_bounded};
use crate::checkpoint::split::INDEX_FILE_NAME;
use crate::checkpoint::strict::{Strictness, links_out};
use crate::checkpoint::tokenizer::TokenizerFacts;
use crate::checkpoint::weights::{Weights, weights_of};
use crate::error::{Error, Kind, Result};
use crate::format::{Container, Index, MAX_INDEX_BYTES};
use crate::tensor::DType;

/// What could be opened of a checkpoint, and what was found on the way.
#[derive(Debug)]
pub struct Survey {
    /// The files that could be opened, with all tensors in them.
    pub checkpoint: Checkpoint,
    /// What was found, in the order in which a reader meets it.
    pub findings: Vec<Finding>,
    /// What the tokenizer files say; none for a single file.
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
    pub fn of(path: &Path, strictness: Strictness) -> Survey {
        let mut survey = Survey {
            checkpoint: Checkpoint::empty(path, None),
            findings: Vec::new(),
            tokenizer: TokenizerFacts::default(),
            strictness,
        };
        let Some(path) = survey.accept(locate(path)) else { return survey };
        match std::fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => survey.look_at_directory(&path),
            Ok(_) => {
                survey.checkpoint.adapter = AdapterConfig::beside(&path);
                survey.add(&path);
            }
            Err(error) => {
                let error = Error::from_io(Kind::NoInput, "cannot open model", &path, error);
                survey.refuse(&error);
                return survey;
            }
        }
        if strictness.no_follow {
            let links = survey.accept(links_out(&path)).unwrap_or_default();
            links.iter().for_each(|error| survey.refuse(error));
        }
        survey
    }

    /// Compares rows with what config.json and the tokenizer say. The first of `rows` is the input
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
                let file = highest.file.to_owned();
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

    fn look_at_directory(&mut self, dir: &Path) {
        self.checkpoint.dir = Some(dir.to_path_buf());
        self.checkpoint.adapter = AdapterConfig::inside(dir);
        let config = dir.join("config.json");
        match self.accept(is_present(&config)) {
            Some(true) => self.checkpoint.config = self.accept(Config::read(&config)),
            Some(false) => self.findings.push(Finding::NoConfig),
            None => {}
        }
        let mut taken = HashSet::new();
        match self.accept(weights_of(dir)) {
            Some(Weights::Single(file)) => {
                taken.insert(file_name(&file));
                self.add(&file);
            }
            Some(Weights::Index(file)) => {
                taken.insert(file_name(&file));
                self.look_at_shards(dir, &file, &mut taken);
            }
            None => {}
        }
        self.look_for_other_weights(dir, &taken);
        self.compare_dtypes();
        let (tokenizer, errors) = TokenizerFacts::read_whole(dir);
        if tokenizer.is_empty() && errors.is_empty() {
            self.findings.push(Finding::NoTokenizer);
        }
        errors.iter().for_each(|error| self.refuse(error));
        self.tokenizer = tokenizer;
    }

    fn add(&mut self, path: &Path) {
        let Some((source, state_dict)) = self.accept(read_headers(path)) else { return };
        let file = file_name(path);
        if let Some(key) = &state_dict.nest {
            self.findings.push(Finding::Nested { file: file.clone(), key: key.clone() });
        }
        if !state_dict.skipped.is_empty() {
            let keys = state_dict.skipped.clone();
            self.findings.push(Finding::Skipped { file: file.clone(), keys });
        }
        if state_dict.container == Container::Legacy {
            let refused = self.strictness.require_checksums;
            self.findings.push(Finding::Legacy { file, refused });
        }
        self.checkpoint.push(source, state_dict);
    }

    fn look_at_shards(&mut self, dir: &Path, index_path: &Path, taken: &mut HashSet<String>) {
        let index = read_bounded(index_path, MAX_INDEX_BYTES).and_then(|bytes| {
            Index::parse(&bytes).map_err(|error| Error::from_format(index_path, error))
        });
        let Some(index) = self.accept(index) else { return };
        let mut shards: Vec<&str> = index.weight_map.iter().map(|entry| entry.1.as_str()).collect();
        shards.sort_unstable();
        shards.dedup();
        let mut unopened = HashSet::new();
        for shard in &shards {
            taken.insert((*shard).to_owned());
            let path = dir.join(shard);
            let before = self.checkpoint.files.len();
            if path.exists() {
                self.add(&path);
            } else {
                self.refuse(&missing_shard(index_path, &path, shards.len()));
            }
            if self.checkpoint.files.len() == before {
                unopened.insert(*shard);
            }
        }
        let found = compare(&index, &self.checkpoint, &unopened);
        self.findings.extend(found);
        self.checkpoint.total_parameters = index.total_parameters;
    }

    fn look_for_other_weights(&mut self, dir: &Path, taken: &HashSet<String>) {
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        let mut files: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !taken.contains(name) && is_weight_name(name))
            .collect();
        files.sort();
        if !files.is_empty() {
            self.findings.push(Finding::OtherWeights { files });
        }
    }

    /// A config of another dtype than every tensor has.
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

/// Names under which programs look for weights.
fn is_weight_name(name: &str) -> bool {
    name == INDEX_FILE_NAME
        || name == "model.safetensors.index.json"
        || name.ends_with(".safetensors")
        || (name.starts_with("pytorch_model") && name.ends_with(".bin"))
}

/// Index against shards. Where a shard could not be opened, nothing is said of what it may hold.
fn compare(index: &Index, checkpoint: &Checkpoint, unopened: &HashSet<&str>) -> Vec<Finding> {
    let mapped: HashMap<&str, &str> =
        index.weight_map.iter().map(|entry| (entry.0.as_str(), entry.1.as_str())).collect();
    let names: Vec<String> = checkpoint.files.iter().map(|file| file_name(file.path())).collect();
    let mut place: HashMap<&str, usize> = HashMap::new();
    let mut unmapped = vec![Vec::new(); names.len()];
    let mut repeated = vec![Vec::new(); names.len()];
    let mut strayed = vec![Vec::new(); names.len()];
    for tensor in &checkpoint.inventory.tensors {
        let name = tensor.name.as_str();
        let file = checkpoint.inventory.file_of(tensor);
        if place.insert(name, file).is_some() {
            repeated[file].push(tensor.name.clone());
            continue;
        }
        match mapped.get(name) {
            None => unmapped[file].push(tensor.name.clone()),
            Some(shard) if *shard != names[file] && !unopened.contains(shard) => {
                strayed[file].push(tensor.name.clone());
            }
            Some(_) => {}
        }
    }
    let mut lacking: Vec<(&str, Vec<String>)> = Vec::new();
    for (name, shard) in &index.weight_map {
        if place.contains_key(name.as_str()) || unopened.contains(shard.as_str()) {
            continue;
        }
        match lacking.iter_mut().find(|entry| entry.0 == shard) {
            Some((_, tensors)) => tensors.push(name.clone()),
            None => lacking.push((shard, vec![name.clone()])),
        }
    }
    let mut found = Vec::new();
    for (position, file) in names.into_iter().enumerate() {
        let mut push = |make: fn(String, Vec<String>) -> Finding, of: &mut Vec<Vec<String>>| {
            let tensors = std::mem::take(&mut of[position]);
            if !tensors.is_empty() {
                found.push(make(file.clone(), tensors));
            }
        };
        push(|file, tensors| Finding::Unmapped { file, tensors }, &mut unmapped);
        push(|file, tensors| Finding::Repeated { file, tensors }, &mut repeated);
        push(|file, tensors| Finding::WrongShard { file, tensors }, &mut strayed);
    }
    let lacking = lacking.into_iter();
    found.extend(lacking.map(|(shard, tensors)| Finding::Lacking { file: shard.into(), tensors }));
    if found.is_empty() && unopened.is_empty() {
        found.extend(compare_total(index, checkpoint));
    }
    found
}

/// What total_size may be: transformers counted tied tensors each time or once, bool as an eighth of
/// a byte (before 4.38) and, today, whole storages.
fn compare_total(index: &Index, checkpoint: &Checkpoint) -> Option<Finding> {
    let said = index.total_size_bytes?;
    let inventory = &checkpoint.inventory;
    let mut seen = HashSet::new();
    let mut totals = [0u64; 5];
    for tensor in &inventory.tensors {
        let numel = tensor.layout.numel().unwrap_or(0);
        let bits = numel.saturating_mul(tensor.dtype.size_bytes()).saturating_mul(8);
        let old_bits = if tensor.dtype == DType::Bool { numel } else { bits };
        let first = seen.insert(tensor.storage);
        let storage = inventory.storages.get(tensor.storage).map_or(0, |s| s.size_bytes);
        let once = |bits: u64| if first { bits } else { 0 };
        let adds = [once(storage.saturating_mul(8)), bits, once(bits), old_bits, once(old_bits)];
        for (total, bits) in totals.iter_mut().zip(adds) {
            *total = total.saturating_add(bits);
        }
    }
    if totals.iter().any(|bits| bits / 8 == said) {
        return None;
    }
    let file = INDEX_FILE_NAME.to_owned();
    Some(Finding::TotalSize { file, expected: totals[0] / 8, found: said })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::tokenizer::HighestId;

    const PRIMARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/llama/primary");

    fn rows(rows: [u64; 2]) -> [Rows; 2] {
        let [embedding, head] = rows;
        [("embed", embedding), ("lm_head", head)]
            .map(|(name, rows)| Rows { tensor: name.to_owned(), rows })
    }

    #[test]
    fn a_whole_model_is_opened_without_a_finding() {
        let mut survey = Survey::of(Path::new(PRIMARY), Strictness::default());
        survey.check_vocabulary(&rows([512, 512]));
        assert_eq!(survey.findings, []);
        assert_eq!(survey.checkpoint.inventory.tensors.len(), 21);
        assert!(!survey.tokenizer.is_empty());
    }

    #[test]
    fn rows_are_compared_with_config_and_tokenizer() {
        let mut survey = Survey::of(Path::new(PRIMARY), Strictness::default());
        survey.tokenizer.highest = Some(HighestId { id: 512, file: "vocab.json" });
        survey.check_vocabulary(&rows([512, 513]));
        let vocab_size =
            Finding::VocabSize { tensor: "lm_head".into(), vocab_size: 512, rows: 513 };
        let token = Finding::TokenId { file: "vocab.json".into(), id: 512, rows: 512 };
        assert_eq!(survey.findings, [vocab_size, token]);
    }

    #[test]
    fn a_model_without_an_embedding_is_not_compared() {
        let mut survey = Survey::of(Path::new(PRIMARY), Strictness::default());
        survey.check_vocabulary(&[]);
        assert_eq!(survey.findings, [Finding::NoEmbedding]);
    }

    #[test]
    fn nothing_at_all_is_one_finding() {
        let survey = Survey::of(&Path::new(PRIMARY).join("absent"), Strictness::default());
        let kinds: Vec<_> = survey.findings.iter().map(Finding::kind).collect();
        assert_eq!(kinds, [Some(Kind::NoInput)]);
        let empty = tempfile::tempdir().expect("a directory");
        let kinds: Vec<_> = Survey::of(empty.path(), Strictness::default())
            .findings
            .iter()
            .map(Finding::kind)
            .collect();
        // No config, no weights, no tokenizer.
        assert_eq!(kinds, [None, Some(Kind::NoInput), None]);
    }

    #[test]
    fn weights_that_other_programs_would_take_are_known_by_name() {
        for name in ["pytorch_model-00001-of-00002.bin", "model.safetensors", INDEX_FILE_NAME] {
            assert!(is_weight_name(name), "{name}");
        }
        for name in ["training_args.bin", "optimizer.pt", "config.json", "tokenizer.model"] {
            assert!(!is_weight_name(name), "{name}");
        }
    }

    #[test]
    fn a_config_of_another_dtype_is_noted() {
        let mut survey = Survey::of(Path::new(PRIMARY), Strictness::default());
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("config.json");
        std::fs::write(&path, r#"{"torch_dtype": "bfloat16"}"#).expect("written");
        survey.checkpoint.config = Some(Config::read(&path).expect("a config"));
        survey.compare_dtypes();
        let found = Finding::ConfigDType { config: "bfloat16".into(), tensors: DType::Float16 };
        assert_eq!(survey.findings, [found]);
    }
}

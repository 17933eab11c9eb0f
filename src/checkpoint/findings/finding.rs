//! `Finding`: everything that the check of a checkpoint can report, with its severity and message.

use std::fmt;

use serde::Serialize;

use crate::error::{Error, Kind};
use crate::tensor::{self, DType, counted, escape};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The checkpoint is damaged or incomplete, or programs will refuse or misread it.
    Error,
    /// Worth a look, though the checkpoint is whole.
    Warning,
    /// What the check could not look at, or what it passed over.
    Note,
}

impl Severity {
    /// Its name in output.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// One thing found. Files are plain names in the model's directory, or paths where they are not.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
#[allow(missing_docs, reason = "file, tensor and counts say what they are")]
pub enum Finding {
    /// A file that can't be opened, read or understood, with the reader's own words.
    Refused {
        file: Option<String>,
        tensor: Option<String>,
        /// The error as it is printed: the finding's own message.
        #[serde(skip)]
        text: String,
        hint: Option<String>,
        #[serde(skip)]
        kind: Kind,
    },
    /// Bytes that don't match their CRC-32.
    Damaged {
        file: String,
        /// The archive's record.
        record: String,
        /// The tensors in it.
        tensors: Vec<String>,
        expected: String,
        found: String,
    },
    /// NaN or Inf in a tensor.
    NonFinite {
        file: String,
        tensor: String,
        /// Number of such elements.
        count: u64,
        /// Flat index of the first, in row-major order.
        first: u64,
        elements: u64,
    },
    /// Tensors of a shard that are not in the index.
    Unmapped { file: String, tensors: Vec<String> },
    /// Known buffers of a shard that are not in the index.
    Buffers { file: String, tensors: Vec<String> },
    /// Tensors of a shard that an earlier shard holds too, with equal bytes.
    Repeated { file: String, tensors: Vec<String> },
    /// Tensors of a shard that an earlier shard holds too, with other bytes.
    Differing { file: String, tensors: Vec<String> },
    /// Tensors that the index maps to a shard and that no shard holds.
    Lacking { file: String, tensors: Vec<String> },
    /// The config's vocab_size is not the row count of a tensor with one row per token.
    VocabSize { tensor: String, vocab_size: u64, rows: u64 },
    /// The tokenizer names a token that the embedding has no row for.
    TokenId { file: String, id: u64, rows: u64 },
    /// The index says another size than the tensors have.
    TotalSize { file: String, expected: u64, found: u64 },
    /// Tensors that are in another shard than the index says.
    WrongShard { file: String, tensors: Vec<String> },
    /// One shard of several, checked by itself.
    OneShard { file: String },
    /// A head that is not the embedding that config.json ties it to.
    UntiedHead { tensor: String, embedding: String },
    /// A model directory without config.json.
    NoConfig,
    /// Weights besides those that were checked, which other programs may load instead.
    OtherWeights { files: Vec<String> },
    /// Tensors of another floating dtype than the config says.
    ConfigDType { config: String, tensors: DType },
    /// Records whose CRC-32 was not computed by the program that wrote them.
    Unchecked {
        file: String,
        records: usize,
        of: usize,
        /// Whether that is an error, with `--require-checksums`.
        #[serde(skip)]
        refused: bool,
    },
    /// The format of torch before 1.6, which has no checksums.
    Legacy {
        file: String,
        /// As in `Unchecked`.
        #[serde(skip)]
        refused: bool,
    },
    /// safetensors, which have no checksums.
    Safetensors {
        file: String,
        /// As in `Unchecked`.
        #[serde(skip)]
        refused: bool,
    },
    /// The state dict was found under a key.
    Nested { file: String, key: String },
    /// Entries that are no tensors.
    Skipped { file: String, keys: Vec<String> },
    /// Values of other programs beside the tensors, by entry, in words.
    Opaque { file: String, values: Vec<String> },
    /// A model directory without tokenizer files.
    NoTokenizer,
    /// No input embedding is known by name, so nothing can be compared with its rows.
    NoEmbedding,
    /// Tensors of a dtype that is not checked for NaN.
    Unexamined { dtype: DType, tensors: usize },
    /// Matrices of zeros.
    AllZero { tensors: Vec<String> },
    /// A matrix whose values are much larger or smaller than those of the same matrix in other
    /// layers.
    FarFromItsLike {
        tensor: String,
        /// Its root mean square. For a tensor of 1 MiB or more, that of a sample of its elements,
        /// or the bound that its largest element alone gives, whichever is larger.
        rms: f64,
        /// The median of its kind.
        median: f64,
        /// Tensors of its kind.
        of: usize,
    },
}

impl Finding {
    /// Makes a finding of a reader's error.
    pub fn refused(error: &Error) -> Finding {
        Finding::Refused {
            file: error.path().map(|path| path.to_string_lossy().into_owned()),
            tensor: error.tensor_name().map(str::to_owned),
            text: error.to_string(),
            hint: error.hint().map(str::to_owned),
            kind: error.kind(),
        }
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match self {
            Finding::Refused { .. }
            | Finding::Unchecked { refused: true, .. }
            | Finding::Legacy { refused: true, .. }
            | Finding::Safetensors { refused: true, .. }
            | Finding::Damaged { .. }
            | Finding::NonFinite { .. }
            | Finding::Unmapped { .. }
            | Finding::Differing { .. }
            | Finding::Lacking { .. }
            | Finding::VocabSize { .. }
            | Finding::TokenId { .. } => Severity::Error,
            Finding::TotalSize { .. }
            | Finding::WrongShard { .. }
            | Finding::OneShard { .. }
            | Finding::UntiedHead { .. }
            | Finding::NoConfig
            | Finding::OtherWeights { .. } => Severity::Warning,
            Finding::ConfigDType { .. }
            | Finding::Unchecked { .. }
            | Finding::Legacy { .. }
            | Finding::Safetensors { .. }
            | Finding::Buffers { .. }
            | Finding::Repeated { .. }
            | Finding::Nested { .. }
            | Finding::Skipped { .. }
            | Finding::Opaque { .. }
            | Finding::NoTokenizer
            | Finding::NoEmbedding
            | Finding::Unexamined { .. }
            | Finding::AllZero { .. }
            | Finding::FarFromItsLike { .. } => Severity::Note,
        }
    }

    /// The kind of an error, which decides the exit code; `None` where it is no error.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Finding::Refused { kind, .. } => Some(*kind),
            other => (other.severity() == Severity::Error).then_some(Kind::Data),
        }
    }

    /// Advice on what to do.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Finding::Refused { hint, .. } => hint.as_deref(),
            Finding::Damaged { .. } => Some("download or copy that file again"),
            Finding::Unchecked { refused: true, .. }
            | Finding::Legacy { refused: true, .. }
            | Finding::Safetensors { refused: true, .. } => {
                Some("save it again with torch.save, or leave out --require-checksums")
            }
            Finding::Unmapped { .. } | Finding::Lacking { .. } | Finding::Differing { .. } => {
                Some("index and shards are from different saves; download both again")
            }
            _ => None,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Refused { text, .. } => f.write_str(text),
            Finding::Damaged { file, record, tensors, expected, found } => {
                write!(f, "record `{}` is damaged: {}", escape(record), escape(file))?;
                if !tensors.is_empty() {
                    write!(f, ": {}", listed(tensors))?;
                }
                write!(f, ": expected CRC-32 {expected}, found {found}")
            }
            Finding::NonFinite { file, tensor, count, first, elements } => write!(
                f,
                "NaN or Inf: {}: `{}`: {count} of {}, the first at {first}",
                escape(file),
                escape(tensor),
                counted(*elements, "element")
            ),
            Finding::Unmapped { file, tensors } => {
                write!(f, "not in the index: {}: {}", escape(file), listed(tensors))
            }
            Finding::Repeated { file, tensors } => {
                let file = escape(file);
                write!(f, "in an earlier shard too, with equal bytes: {file}: {}", listed(tensors))
            }
            Finding::Differing { file, tensors } => {
                let file = escape(file);
                write!(f, "in an earlier shard too, with other bytes: {file}: {}", listed(tensors))
            }
            Finding::Buffers { file, tensors } => {
                let file = escape(file);
                write!(f, "buffers that the index lacks: {file}: {}", listed(tensors))
            }
            Finding::Lacking { file, tensors } => {
                let file = escape(file);
                write!(f, "in no shard, though the index names it: {file}: {}", listed(tensors))
            }
            Finding::VocabSize { tensor, vocab_size, rows } => write!(
                f,
                "wrong vocab_size: config.json: `{}`: expected {}, found {vocab_size}",
                escape(tensor),
                counted(*rows, "row")
            ),
            Finding::TokenId { file, id, rows } => write!(
                f,
                "a token without a row: {}: expected ids below {rows}, found {id}",
                escape(file)
            ),
            Finding::TotalSize { file, expected, found } => write!(
                f,
                "wrong total_size: {}: expected {}, found {found}",
                escape(file),
                counted(*expected, "byte")
            ),
            Finding::WrongShard { file, tensors } => {
                let file = escape(file);
                write!(f, "in another shard than the index says: {file}: {}", listed(tensors))
            }
            Finding::OneShard { file } => {
                write!(f, "one of several shards: {}: the others were not looked at", escape(file))
            }
            Finding::UntiedHead { tensor, embedding } => write!(
                f,
                "not the embedding, though config.json ties it (tie_word_embeddings): `{}`: its \
                 values are not those of `{}`; most programs will use the embedding in its place \
                 (transformers before 5, vLLM), some the head",
                escape(tensor),
                escape(embedding)
            ),
            Finding::NoConfig => f.write_str("no config.json: most programs can't load this model"),
            Finding::OtherWeights { files } => write!(
                f,
                "not looked at, though other programs may take it: {}; move it away or verify it \
                 by name",
                listed(files)
            ),
            Finding::ConfigDType { config, tensors } => {
                write!(f, "config.json says {}, tensors are {tensors}", escape(config))
            }
            Finding::Unchecked { file, records, of, .. } => write!(
                f,
                "no CRC: {}: {records} of {} written without one, so its bytes can't be checked",
                escape(file),
                counted(*of as u64, "record")
            ),
            Finding::Legacy { file, .. } => write!(
                f,
                "no CRC: {}: the format of torch before 1.6 has none, so bytes can't be checked",
                escape(file)
            ),
            Finding::Safetensors { file, .. } => write!(
                f,
                "no CRC: {}: safetensors have none, so bytes can't be checked",
                escape(file)
            ),
            Finding::Nested { file, key } => {
                write!(f, "the state dict is the entry `{}`: {}", escape(key), escape(file))
            }
            Finding::Skipped { file, keys } => {
                write!(f, "entries that are no tensors: {}: {}", escape(file), listed(keys))
            }
            Finding::Opaque { file, values } => {
                let (file, values) = (escape(file), tensor::listed(values.iter().cloned(), SHOWN));
                write!(f, "values of other programs, not read: {file}: {values}")
            }
            Finding::NoTokenizer => f.write_str("no tokenizer files"),
            Finding::NoEmbedding => {
                f.write_str("no input embedding known by name: vocabulary not compared")
            }
            Finding::Unexamined { dtype, tensors } => {
                write!(f, "not looked at for NaN: tensors of {dtype} ({tensors})")
            }
            Finding::AllZero { tensors } => write!(f, "every element is zero: {}", listed(tensors)),
            Finding::FarFromItsLike { tensor, rms, median, of } => write!(
                f,
                "far from its like: `{}`: root mean square {rms:.2e}, median of the {of} tensors of \
                 its kind {median:.2e}",
                escape(tensor)
            ),
        }
    }
}

/// Names that a message lists.
const SHOWN: usize = 4;

/// The first few of some names, in backticks.
fn listed(names: &[String]) -> String {
    tensor::listed(names.iter().map(|name| format!("`{}`", escape(name))), SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_files_are_escaped_and_long_lists_cut() {
        let names: Vec<String> = (0..6).map(|name| format!("{name}\u{1b}[31m")).collect();
        let text = Finding::Unmapped { file: "a\n.bin".into(), tensors: names }.to_string();
        assert_eq!(
            text,
            "not in the index: a\\n.bin: `0\\u{1b}[31m`, `1\\u{1b}[31m`, `2\\u{1b}[31m`, \
             `3\\u{1b}[31m`, 2 more"
        );
    }

    #[test]
    fn errors_have_a_kind_and_others_none() {
        assert_eq!(Finding::NoConfig.kind(), None);
        assert_eq!(Finding::NoTokenizer.severity(), Severity::Note);
        let missing = Error::new(Kind::NoInput, "a shard is missing");
        assert_eq!(Finding::refused(&missing).kind(), Some(Kind::NoInput));
        let damaged = Finding::Damaged {
            file: "a".into(),
            record: "a/data/0".into(),
            tensors: Vec::new(),
            expected: "00000001".into(),
            found: "00000002".into(),
        };
        assert_eq!((damaged.kind(), damaged.severity()), (Some(Kind::Data), Severity::Error));
    }
}

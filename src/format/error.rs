//! The errors for a file that breaks its format: the rule that it breaks, and the refusal that says
//! so.

use std::io;

use thiserror::Error;

/// The rule that a file breaks. Tests and callers match on it; people read the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// The file is empty, or too short to be of any kind.
    Empty,
    /// The file ends before what its own numbers promise.
    Truncated,
    /// A known file of another kind (LFS pointer, HTML page, gzip, ...).
    WrongKind,
    /// Not recognised at all.
    UnknownKind,
    /// The zip's structure contradicts itself or the file.
    ZipStructure,
    /// Two zip entries of one name, or bytes claimed by two entries.
    ZipOverlap,
    /// Encryption, or a method other than stored and deflate.
    ZipUnsupported,
    /// Compressed data that is broken or larger than it claims.
    Inflate,
    /// A record that the pickle needs is not in the archive.
    MissingRecord,
    /// The `byteorder` record is neither `little` nor `big`, or can't be honoured.
    ByteOrder,
    /// A pickle that is broken: opcodes, stack, memo, lengths, text.
    Pickle,
    /// A pickle that asks for more than the bounds allow (depth, size).
    PickleLimit,
    /// A global outside torch's own list; nothing was called.
    ForbiddenGlobal,
    /// A kind of tensor or value we do not merge (sparse, quantised, meta, whole modules, ...).
    Unsupported,
    /// The legacy stream breaks its own rules.
    Legacy,
    /// The header of a safetensors file is none: its length, its JSON, an entry.
    SafetensorsHeader,
    /// Bytes of a safetensors file that no tensor claims, or two do.
    SafetensorsData,
    /// A tensor that leaves its storage, or whose numbers make no sense.
    TensorBounds,
    /// A storage whose bytes do not fit what the pickle says of it.
    StorageSize,
    /// No state dict in the file.
    NoStateDict,
    /// More than one dict of tensors that may be the state dict.
    SeveralStateDicts,
    /// The entry that was asked for is not in the file.
    NoEntry,
    /// A name that is not text, or is there twice.
    TensorName,
    /// A CRC-32 that does not match the bytes.
    Checksum,
    /// NaN or Inf among the values.
    NonFinite,
    /// An index JSON that is not one.
    Index,
    /// The system could not read the file.
    Read,
}

/// One refusal: what is wrong, where, what was expected and what was found.
#[derive(Debug, Error)]
#[error("{}", self.text())]
pub struct FormatError {
    /// The rule that was broken.
    pub rule: Rule,
    /// What was being read, in a few words: `zip directory`, `storage 12`.
    pub what: String,
    /// The tensor concerned, where there is one.
    pub tensor: Option<String>,
    /// Byte position in the file (or in the pickle, as `what` says), where there is one.
    pub offset: Option<u64>,
    /// What should have been there; empty where there is nothing to compare.
    pub expected: String,
    /// What was there.
    pub found: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The system's error, where it was one.
    #[source]
    pub source: Option<io::Error>,
}

impl FormatError {
    /// A refusal by `rule`: what was being read, what was expected, what was found.
    pub fn new(
        rule: Rule,
        what: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> FormatError {
        FormatError {
            rule,
            what: what.into(),
            tensor: None,
            offset: None,
            expected: expected.into(),
            found: found.into(),
            hint: None,
            source: None,
        }
    }

    /// A failed read of `what`.
    pub fn read(what: impl Into<String>, offset: u64, source: io::Error) -> FormatError {
        let rule = match source.kind() {
            io::ErrorKind::UnexpectedEof => Rule::Truncated,
            _ => Rule::Read,
        };
        let error = FormatError::new(rule, what, "readable bytes", source.to_string()).at(offset);
        FormatError { source: Some(source), ..error }
    }

    /// Adds the tensor's name.
    #[must_use]
    pub fn tensor(mut self, name: impl Into<String>) -> FormatError {
        self.tensor = Some(name.into());
        self
    }

    /// Adds a byte position.
    #[must_use]
    pub fn at(mut self, offset: u64) -> FormatError {
        self.offset = Some(offset);
        self
    }

    /// Adds advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> FormatError {
        self.hint = Some(hint.into());
        self
    }

    /// `what at byte N: expected X, found Y`, without tensor and file: the crate's error adds those.
    pub fn text(&self) -> String {
        let mut text = self.what.clone();
        if let Some(offset) = self.offset {
            text.push_str(&format!(" at byte {offset}"));
        }
        match (self.expected.is_empty(), self.found.is_empty()) {
            (false, false) => {
                text.push_str(&format!(": expected {}, found {}", self.expected, self.found));
            }
            (false, true) => text.push_str(&format!(": expected {}", self.expected)),
            (true, false) => text.push_str(&format!(": {}", self.found)),
            (true, true) => {}
        }
        text
    }
}

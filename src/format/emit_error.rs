//! The errors for a file that can't be laid out for writing.

use thiserror::Error;

use crate::error::{Error as CrateError, Kind};
use crate::tensor::{DType, counted, escape};

/// A state dict or a path that can't become a torch file. Nothing has been written when it arises.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EmitError {
    /// The part of the path that names the folder inside the zip is empty (`.bin`, `dir/`).
    #[error("output file name `{}`: expected a character before the extension", escape(path))]
    EmptyFolder {
        /// The path as given.
        path: String,
    },
    /// A record's name does not fit the zip's 16-bit length.
    #[error("output file name: expected at most 65535 bytes with the record's name, found {bytes}")]
    FolderTooLong {
        /// Bytes of folder and record name.
        bytes: u64,
    },
    /// A tensor name does not fit the pickle's 32-bit length.
    #[error("tensor name: expected at most 4294967295 bytes, found {bytes}")]
    NameTooLong {
        /// Bytes of the name.
        bytes: u64,
    },
    /// A state dict names every tensor once.
    #[error("tensor `{}` is there twice", escape(name))]
    DuplicateName {
        /// The repeated name.
        name: String,
    },
    /// Shape and stride have different lengths.
    #[error("tensor `{}`: expected as many strides as sizes", escape(name))]
    RankMismatch {
        /// The tensor.
        name: String,
    },
    /// A tensor names a storage that was not given.
    #[error("tensor `{}`: expected a storage below {count}, found {storage}", escape(name))]
    UnknownStorage {
        /// The tensor.
        name: String,
        /// The storage it names.
        storage: usize,
        /// How many storages there are.
        count: usize,
    },
    /// A tensor reaches past the end of its storage.
    #[error("tensor `{}` does not lie inside its storage of {}", escape(name), counted(*storage_bytes, "byte"))]
    OutsideStorage {
        /// The tensor.
        name: String,
        /// Size of its storage, in bytes.
        storage_bytes: u64,
    },
    /// torch refuses to save one storage under two storage classes.
    #[error(
        "tensor `{}`: its storage is already saved as {first}, expected the same, found {second}",
        escape(name)
    )]
    TwoDTypes {
        /// The later tensor.
        name: String,
        /// The dtype of the storage's first tensor.
        first: DType,
        /// The dtype of this one.
        second: DType,
    },
    /// A storage that no tensor looks at would not be written by torch.
    #[error("storage {storage} belongs to no tensor")]
    UnusedStorage {
        /// The storage.
        storage: usize,
    },
    /// More tensors or storages than the writer can order as libstdc++ does.
    #[error("expected at most {limit} tensors in one file, found {count}")]
    TooMany {
        /// Tensors or records asked for.
        count: usize,
        /// The most that one file can have.
        limit: usize,
    },
    /// The file would be larger than a file can be.
    #[error("the file would be larger than 9223372036854775807 bytes")]
    TooLarge,
    /// A name that safetensors can't have, or that is their metadata's.
    #[error("tensor `{}`: expected a name of printable characters for safetensors", escape(name))]
    Name {
        /// The name.
        name: String,
    },
    /// A dtype that safetensors don't have.
    #[error("tensor `{}`: expected a dtype that safetensors have, found {dtype}", escape(name))]
    DType {
        /// The tensor.
        name: String,
        /// Its dtype.
        dtype: DType,
    },
    /// safetensors have no shared bytes and no views.
    #[error("tensor `{}` is not all of a storage of its own", escape(name))]
    NotAlone {
        /// The tensor.
        name: String,
    },
    /// A header that the safetensors library refuses to make.
    #[error("safetensors header: {found}")]
    Header {
        /// The library's words.
        found: String,
    },
    /// A header that no program reads.
    #[error("safetensors header: expected at most {limit} bytes, found {bytes}")]
    HeaderTooLong {
        /// Its length in bytes.
        bytes: u64,
        /// The longest one.
        limit: u64,
    },
    /// The checksums given at the end are not one per storage.
    #[error("expected {}, one per storage, found {found}", counted(*expected as u64, "checksum"))]
    ChecksumCount {
        /// Storages in the file.
        expected: usize,
        /// Checksums given.
        found: usize,
    },
}

impl From<EmitError> for CrateError {
    /// Bad output paths are the user's (`Output`), limits of the format too; the rest is a bug of
    /// ours, since plans are checked before anything is laid out.
    fn from(error: EmitError) -> CrateError {
        let kind = match &error {
            EmitError::EmptyFolder { .. }
            | EmitError::FolderTooLong { .. }
            | EmitError::NameTooLong { .. }
            | EmitError::TooMany { .. }
            | EmitError::Name { .. }
            | EmitError::DType { .. }
            | EmitError::HeaderTooLong { .. }
            | EmitError::TooLarge => Kind::Output,
            EmitError::DuplicateName { .. }
            | EmitError::RankMismatch { .. }
            | EmitError::UnknownStorage { .. }
            | EmitError::OutsideStorage { .. }
            | EmitError::TwoDTypes { .. }
            | EmitError::UnusedStorage { .. }
            | EmitError::NotAlone { .. }
            | EmitError::Header { .. }
            | EmitError::ChecksumCount { .. } => Kind::Internal,
        };
        CrateError::new(kind, error.to_string())
    }
}

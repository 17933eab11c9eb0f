//! Names the work directory, in which a child is made before it appears at its output.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::checkpoint::output::mount_point::is_mount_point;
use crate::error::{Error, Kind};
use crate::tensor::crc32;

/// Longest output name that fits into the work directory's name; file systems allow 255 bytes.
const LONGEST_NAME: usize = 240;

/// How the name of a work directory ends.
const SUFFIX: &str = ".partial";

/// The work directory of an output: beside it, or in it where it is a mount point; hidden, and
/// under no name that a loader looks for.
pub(crate) fn work_dir(output: &Path) -> PathBuf {
    let own = output.file_name().unwrap_or_default();
    let mut name = OsString::from(".");
    if own.len() <= LONGEST_NAME {
        name.push(own);
    } else {
        name.push(format!("{:08x}", crc32(own.as_encoded_bytes())));
    }
    name.push(SUFFIX);
    if is_mount_point(output) { output.join(name) } else { output.with_file_name(name) }
}

/// Whether a directory of this name is a work directory.
pub(crate) fn is_work_dir(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(SUFFIX)
}

/// The error for a failed write in the work directory, with advice where the cause is known.
pub(crate) fn write_failed(what: &str, path: &Path, error: std::io::Error) -> Error {
    let hint = match error.kind() {
        ErrorKind::StorageFull => "free some space or inodes and merge again; nothing was left",
        ErrorKind::QuotaExceeded => "the disk quota is used up; nothing was left",
        ErrorKind::FileTooLarge => {
            "the limit for one file's size (`ulimit -f`) is too low; nothing was left"
        }
        ErrorKind::NotFound => "the directory was removed while the child was made",
        _ => return Error::from_io(Kind::Io, what, path, error),
    };
    Error::from_io(Kind::Io, what, path, error).with_hint(hint)
}

//! Flushes, compares and empties directories.

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, RawDir};

use crate::error::{Error, Kind, Result};

/// Flushes a directory.
pub(super) fn sync_dir(path: &Path) -> Result<()> {
    let failed = |error| Error::from_io(Kind::Io, "cannot flush directory to disk", path, error);
    File::open(path).and_then(|handle| handle.sync_all()).map_err(failed)
}

/// Whether a path leads to the directory that `handle` has open.
pub(super) fn same_directory(handle: &File, path: &Path) -> bool {
    match (handle.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(a), Ok(b)) => a.dev() == b.dev() && a.ino() == b.ino(),
        _ => false,
    }
}

/// Removes the files of a directory without opening anything: the process may be out of file
/// handles.
pub(super) fn empty(dir: &File) -> std::io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    loop {
        rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0))?;
        let mut entries = RawDir::new(dir, &mut buffer);
        let mut removed = false;
        while let Some(entry) = entries.next() {
            let entry = entry?;
            if ![&b"."[..], b".."].contains(&entry.file_name().to_bytes()) {
                rustix::fs::unlinkat(dir, entry.file_name(), AtFlags::empty())?;
                removed = true;
            }
        }
        // Removing entries while listing may skip others: list again until none is left.
        if !removed {
            return Ok(());
        }
    }
}

//! Folders in the work directory of a child, with the small files in them.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::checkpoint::output::directory::sync_dir;
use crate::error::{Error, Kind, Result};

/// What was made, in order: it is removed without being looked for, since handles may be what has
/// run out.
#[derive(Debug)]
pub(super) struct Folders {
    work: PathBuf,
    made: Mutex<Vec<Made>>,
}

/// By its path from the work directory.
#[derive(Debug)]
enum Made {
    Folder(PathBuf),
    File(PathBuf),
}

impl Folders {
    /// None yet, in the work directory `work`.
    pub(super) fn new(work: &Path) -> Folders {
        Folders { work: work.to_path_buf(), made: Mutex::default() }
    }

    fn made(&self) -> MutexGuard<'_, Vec<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the folders that the path of a file leads through.
    ///
    /// # Errors
    /// [`Kind::Io`] with the path.
    pub(super) fn make_above(&self, file: &Path) -> Result<()> {
        let mut folders: Vec<&Path> = file.ancestors().skip(1).collect();
        folders.retain(|folder| !folder.as_os_str().is_empty());
        let mut made = self.made();
        for folder in folders.iter().rev() {
            let path = self.work.join(folder);
            match std::fs::create_dir(&path) {
                Ok(()) => made.push(Made::Folder(folder.to_path_buf())),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(Error::from_io(Kind::Io, "cannot make folder", &path, error));
                }
            }
        }
        if !folders.is_empty() {
            made.push(Made::File(file.to_path_buf()));
        }
        Ok(())
    }

    /// Removes all of them.
    pub(super) fn remove(&self) {
        for made in self.made().iter().rev() {
            // What stays is told of when the work directory can't be removed.
            let _ = match made {
                Made::Folder(path) => std::fs::remove_dir(self.work.join(path)),
                Made::File(path) => std::fs::remove_file(self.work.join(path)),
            };
        }
    }

    /// Flushes them to disk, the deepest first.
    ///
    /// # Errors
    /// [`Kind::Io`] with the path.
    pub(super) fn flush(&self) -> Result<()> {
        self.made().iter().rev().try_for_each(|made| match made {
            Made::Folder(path) => sync_dir(&self.work.join(path)),
            Made::File(_) => Ok(()),
        })
    }
}

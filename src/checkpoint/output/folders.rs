//! Makes folders in a child's work directory for the side files in them, and flushes or removes
//! them.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::checkpoint::output::directory::sync_dir;
use crate::error::{Error, Kind, Result};

/// What was made, in order. Removal follows this list instead of the disk: the process may be out
/// of file handles.
#[derive(Debug)]
pub(super) struct Folders {
    work: PathBuf,
    made: Mutex<Vec<Made>>,
}

/// What was made, by its path from the work directory.
#[derive(Debug)]
enum Made {
    Folder(PathBuf),
    File(PathBuf),
}

impl Folders {
    /// No folders yet in the work directory `work`.
    pub(super) fn new(work: &Path) -> Folders {
        Folders { work: work.to_path_buf(), made: Mutex::default() }
    }

    fn made(&self) -> MutexGuard<'_, Vec<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the folders above a file.
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

    /// Removes them and their files.
    pub(super) fn remove(&self) {
        for made in self.made().iter().rev() {
            // A failure shows when the work directory is removed.
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

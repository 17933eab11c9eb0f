//! How a child appears at its output: written to a hidden sibling directory, flushed, then renamed.
//!
//! ```text
//! DIR/.NAME.partial/   written and flushed here, locked by the run that writes it
//!        |  rename, when every byte is on disk
//!        v
//! DIR/NAME
//! ```

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};

use crate::checkpoint::files::paths::parent_of;
use crate::checkpoint::output::directory::{empty, same_directory, sync_dir};
use crate::checkpoint::output::folders::Folders;
use crate::checkpoint::output::journal::{JOURNAL_FILE, NEW_JOURNAL_FILE};
use crate::checkpoint::output::made_dirs::MadeDirs;
use crate::checkpoint::output::mount_point::{is_mount_point, put_inside, take_out};
use crate::checkpoint::output::swap::{Replaced, aside, recover, swap_in, undo};
use crate::checkpoint::output::work_dir::{work_dir, write_failed};
use crate::error::{Error, Kind, Result};

/// A child being written in its work directory, which is removed on drop unless [`Staging::commit`]
/// or [`Staging::keep`] was called.
#[derive(Debug)]
pub struct Staging {
    output: PathBuf,
    work: PathBuf,
    /// The work directory, open and locked. The lock ends with the process, however that ends.
    lock: File,
    fsync: bool,
    /// Whether the output is a mount point, with the work directory in it.
    inside: bool,
    folders: Folders,
    done: bool,
    /// Declared last, so dropped when the work directory is gone.
    above: MadeDirs,
}

impl Staging {
    /// Makes and locks the work directory of `output`, and removes what an interrupted run left in
    /// it. Missing directories above `output` are made, and removed again if no child appears.
    ///
    /// # Errors
    /// [`Kind::TryAgain`] where another run holds it, [`Kind::Output`] where it can't be made.
    pub fn create(output: &Path, fsync: bool) -> Result<Staging> {
        let staging = Staging::open(output, fsync)?;
        staging.clear(&|_| false)?;
        Ok(staging)
    }

    /// Like [`Staging::create`], but keeps what an interrupted run left in the work directory.
    ///
    /// # Errors
    /// As [`Staging::create`].
    pub fn open(output: &Path, fsync: bool) -> Result<Staging> {
        let parent = parent_of(output);
        let refused =
            |path: &Path, error| Error::from_io(Kind::Output, "cannot make directory", path, error);
        let above = MadeDirs::make(&parent).map_err(|error| refused(&parent, error))?;
        let work = work_dir(output);
        loop {
            let made = match std::fs::create_dir(&work) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(refused(&work, error));
                }
                made => made.is_ok(),
            };
            let lock = match File::open(&work) {
                Ok(lock) => lock,
                // Another run renamed or removed it in between.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => {
                    if made {
                        let _ = std::fs::remove_dir(&work);
                    }
                    return Err(refused(&work, error));
                }
            };
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(Error::new(Kind::TryAgain, "another run is writing this output")
                        .file(output)
                        .with_hint("wait for it to end, or give another -o"));
                }
                // A file system without locks. The final rename still replaces nothing.
                Err(error) => log::debug!("no lock on {}: {error}", work.display()),
            }
            if !same_directory(&lock, &work) {
                continue;
            }
            let inside = is_mount_point(output);
            if inside {
                take_out(&work, output)?;
            } else {
                recover(&work, output).map_err(|error| refused(&aside(&work), error))?;
            }
            let output = output.to_path_buf();
            let folders = Folders::new(&work);
            return Ok(Staging { output, work, lock, fsync, inside, folders, done: false, above });
        }
    }

    /// Removes what an interrupted run left, except for files that `stays` names.
    ///
    /// # Errors
    /// [`Kind::Output`] where something can't be removed.
    pub fn clear(&self, stays: &dyn Fn(&str) -> bool) -> Result<()> {
        let failed = |error| {
            Error::from_io(Kind::Output, "cannot clear what an earlier run left", &self.work, error)
        };
        let mut stale = false;
        for entry in std::fs::read_dir(&self.work).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_file = entry.file_type().map_err(failed)?.is_file();
            if is_file && entry.file_name().to_str().is_some_and(stays) {
                continue;
            }
            if entry.file_type().map_err(failed)?.is_dir() {
                std::fs::remove_dir_all(entry.path()).map_err(failed)?;
            } else {
                std::fs::remove_file(entry.path()).map_err(failed)?;
            }
            stale = true;
        }
        if stale {
            log::warn!("removed what an interrupted run left in {}", self.work.display());
        }
        Ok(())
    }

    /// The work directory.
    pub fn dir(&self) -> &Path {
        &self.work
    }

    /// Where the child will be.
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// Whether files are flushed to disk before the child appears.
    pub fn fsync(&self) -> bool {
        self.fsync
    }

    /// Leaves the work directory for a later run, and returns its path.
    pub fn keep(mut self) -> PathBuf {
        self.done = true;
        self.above.stay();
        self.work.clone()
    }

    /// Makes an empty file in the work directory, for reading and writing.
    ///
    /// # Errors
    /// [`Kind::Io`] with the path.
    pub fn create_file(&self, name: &str) -> Result<File> {
        self.open_file(name, OpenOptions::new().create_new(true))
    }

    /// Opens a file of the work directory, or makes it. Keeps its content; follows no links.
    ///
    /// # Errors
    /// [`Kind::Io`] with the path.
    pub fn reopen_file(&self, name: &str) -> Result<File> {
        let no_link = OFlags::NOFOLLOW.bits().cast_signed();
        self.open_file(name, OpenOptions::new().create(true).custom_flags(no_link))
    }

    /// Opens a file of the work directory that was made before.
    ///
    /// # Errors
    /// [`Kind::Io`] with the path.
    pub fn existing_file(&self, name: &str) -> Result<File> {
        self.open_file(name, &mut OpenOptions::new())
    }

    /// Opens such a file for writes past the page cache; `None` where the file system has none.
    pub fn direct_file(&self, name: &str) -> Option<File> {
        let flags = OFlags::DIRECT.bits().cast_signed();
        let opened = self.open_file(name, OpenOptions::new().custom_flags(flags));
        opened.inspect_err(|error| log::debug!("no direct writes: {error}")).ok()
    }

    fn open_file(&self, name: &str, options: &mut OpenOptions) -> Result<File> {
        let path = self.work.join(name);
        options
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| write_failed("cannot open file", &path, error))
    }

    /// Writes a side file and flushes it. Folders in its name are made.
    ///
    /// # Errors
    /// [`Kind::Io`] with the path.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.folders.make_above(Path::new(name))?;
        let mut file = self.create_file(name)?;
        let path = self.work.join(name);
        file.write_all(bytes).map_err(|error| write_failed("cannot write file", &path, error))?;
        self.flush(&file, name)
    }

    /// Flushes a file to disk, once: a failed fsync is never tried again, since the kernel may
    /// have dropped the dirty pages and would then report success.
    ///
    /// # Errors
    /// [`Kind::Io`] with the path.
    pub fn flush(&self, file: &File, name: &str) -> Result<()> {
        if !self.fsync {
            return Ok(());
        }
        file.sync_all().map_err(|error| {
            write_failed("cannot flush file to disk", &self.work.join(name), error)
        })
    }

    /// Renames the work directory to the output, and flushes the directory that holds it. With
    /// `overwrite` an older child is swapped out in the same step and removed afterwards. Where the
    /// flush fails, the rename is undone.
    ///
    /// # Errors
    /// [`Kind::Output`] where something appeared at the output meanwhile, else [`Kind::Io`].
    pub fn commit(mut self, overwrite: bool) -> Result<()> {
        for name in [JOURNAL_FILE, NEW_JOURNAL_FILE] {
            let path = self.work.join(name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Error::from_io(Kind::Io, "cannot remove file", &path, error));
                }
                _ => {}
            }
        }
        if self.fsync {
            self.folders.flush()?;
            self.lock.sync_all().map_err(|error| {
                Error::from_io(Kind::Io, "cannot flush directory to disk", &self.work, error)
            })?;
        }
        if self.inside {
            // Drop removes the empty work directory.
            return put_inside(&self.work, &self.output, self.fsync);
        }
        let replaced = swap_in(&self.work, &self.output, overwrite)?;
        if self.fsync
            && let Err(error) = sync_dir(&parent_of(&self.output)).and_then(|()| self.above.flush())
        {
            if undo(&self.work, &self.output, replaced) {
                return Err(error);
            }
            self.done = true;
            self.above.stay();
            return Err(error.with_hint("the child is at its place, but a power cut may take it"));
        }
        self.done = true;
        self.above.stay();
        let old = match replaced {
            Replaced::Nothing => return Ok(()),
            Replaced::Swapped => self.work.clone(),
            Replaced::Aside => aside(&self.work),
        };
        if let Err(error) = std::fs::remove_dir_all(&old) {
            log::warn!(
                "the child is complete, but the replaced one is left in {}: {error}",
                old.display()
            );
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.done && same_directory(&self.lock, &self.work) {
            self.folders.remove();
            if let Err(error) = empty(&self.lock).and_then(|()| std::fs::remove_dir(&self.work)) {
                log::warn!("left on disk: {}: {error}", self.work.display());
            }
        }
    }
}

/// Whether an interrupted run left a journal for this output.
pub fn has_journal(output: &Path) -> bool {
    std::fs::symlink_metadata(work_dir(output).join(JOURNAL_FILE)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_appears_only_when_it_is_committed() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("child");
        let staging = Staging::create(&output, true).unwrap();
        staging.write_file("a", b"x").unwrap();
        assert!(!output.exists());
        staging.commit(false).unwrap();
        assert_eq!(std::fs::read(output.join("a")).unwrap(), b"x");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_abandoned_child_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::create(&dir.path().join("child"), false).unwrap();
        staging.write_file("a", b"x").unwrap();
        staging.write_file("1_Pooling/deep/config.json", b"x").unwrap();
        staging.write_file("1_Pooling/config.json", b"x").unwrap();
        drop(staging);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn directories_above_an_abandoned_child_go_with_it_unless_they_are_used() {
        let dir = tempfile::tempdir().unwrap();
        let create = |name: &str| Staging::create(&dir.path().join(name), false).unwrap();
        drop(create("a/b/child"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let staging = create("a/b/child");
        std::fs::write(dir.path().join("a/theirs"), b"").unwrap();
        drop(staging);
        assert!(dir.path().join("a/theirs").exists() && !dir.path().join("a/b").exists());
        create("a/b/child").commit(false).unwrap();
        assert!(dir.path().join("a/b/child").exists());
    }

    #[test]
    fn two_runs_to_one_output_do_not_meet() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("child");
        let first = Staging::create(&output, false).unwrap();
        assert_eq!(Staging::create(&output, false).unwrap_err().kind(), Kind::TryAgain);
        drop(first);
        Staging::create(&output, false).unwrap();
    }

    #[test]
    fn overwriting_swaps_the_old_child_for_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("child");
        std::fs::create_dir(&output).unwrap();
        std::fs::write(output.join("old"), b"").unwrap();
        let staging = Staging::create(&output, true).unwrap();
        staging.write_file("new", b"").unwrap();
        staging.commit(true).unwrap();
        assert!(output.join("new").exists() && !output.join("old").exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_output_that_appeared_meanwhile_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("child");
        let staging = Staging::create(&output, true).unwrap();
        std::fs::create_dir(&output).unwrap();
        std::fs::write(output.join("theirs"), b"").unwrap();
        assert_eq!(staging.commit(false).unwrap_err().kind(), Kind::Output);
        assert!(output.join("theirs").exists());
    }
}

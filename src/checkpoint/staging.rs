//! The child's way to its place: a hidden sibling directory, flushed, then one rename.
//!
//! ```text
//! DIR/.NAME.partial/   written and flushed here, locked by the run that writes it
//!        |  rename, when every byte is on disk
//!        v
//! DIR/NAME
//! ```

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, RenameFlags};

use crate::checkpoint::output::parent_of;
use crate::error::{Error, Kind, Result};

/// A child in the making. Dropped without [`Staging::commit`], it removes what it wrote.
#[derive(Debug)]
pub struct Staging {
    output: PathBuf,
    work: PathBuf,
    /// Open for its lock, which ends with the process whatever happens to it.
    lock: File,
    fsync: bool,
    done: bool,
    /// Dropped last, when the work directory is gone.
    above: MadeAbove,
}

/// Directories above an output that were missing, lowest first. Dropped, it removes those that are
/// empty still.
#[derive(Debug, Default)]
struct MadeAbove(Vec<PathBuf>);

impl MadeAbove {
    fn make(dir: &Path) -> std::io::Result<MadeAbove> {
        let missing = dir.ancestors().take_while(|above| {
            !above.as_os_str().is_empty() && std::fs::symlink_metadata(above).is_err()
        });
        let made = MadeAbove(missing.map(Path::to_path_buf).collect());
        std::fs::create_dir_all(dir)?;
        Ok(made)
    }
}

impl Drop for MadeAbove {
    fn drop(&mut self) {
        // Another run may be using them by now: they stay where they are not empty.
        self.0.iter().all(|dir| std::fs::remove_dir(dir).is_ok());
    }
}

impl Staging {
    /// Makes and locks the work directory beside `output`. What an earlier, dead run left there is
    /// removed. Missing directories above `output` are made, and go again if the child does not come.
    ///
    /// # Errors
    /// [`Kind::TryAgain`] where another run holds it, [`Kind::Output`] where it can't be made.
    pub fn create(output: &Path, fsync: bool) -> Result<Staging> {
        let parent = parent_of(output);
        let refused =
            |path: &Path, error| Error::from_io(Kind::Output, "cannot make directory", path, error);
        let above = MadeAbove::make(&parent).map_err(|error| refused(&parent, error))?;
        let work = parent.join(work_name(output));
        loop {
            match std::fs::create_dir(&work) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(refused(&work, error));
                }
                _ => {}
            }
            let lock = match File::open(&work) {
                Ok(lock) => lock,
                // Another run renamed or removed it in between.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(refused(&work, error)),
            };
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(Error::new(Kind::TryAgain, "another run is writing this output")
                        .file(output)
                        .with_hint("wait for it to end, or give another -o"));
                }
                // File systems without locks: the rename that replaces nothing is the backstop.
                Err(error) => log::debug!("no lock on {}: {error}", work.display()),
            }
            if !same_directory(&lock, &work) {
                continue;
            }
            let output = output.to_path_buf();
            let staging = Staging { output, work, lock, fsync, done: false, above };
            staging.clear()?;
            return Ok(staging);
        }
    }

    fn clear(&self) -> Result<()> {
        let failed = |error| {
            Error::from_io(Kind::Output, "cannot clear what an earlier run left", &self.work, error)
        };
        let mut stale = 0usize;
        for entry in std::fs::read_dir(&self.work).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().map_err(failed)?.is_dir() {
                std::fs::remove_dir_all(entry.path()).map_err(failed)?;
            } else {
                std::fs::remove_file(entry.path()).map_err(failed)?;
            }
            stale += 1;
        }
        if stale > 0 {
            log::info!("removed {stale} files of an interrupted run in {}", self.work.display());
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

    /// Makes an empty file in the work directory, readable and writable, mode by umask.
    ///
    /// # Errors
    /// [`Kind::Io`] with the path.
    pub fn create_file(&self, name: &str) -> Result<File> {
        let path = self.work.join(name);
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|error| Error::from_io(Kind::Io, "cannot make file", &path, error))
    }

    /// Writes a whole small file and flushes it.
    ///
    /// # Errors
    /// [`Kind::Io`] with the path.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut file = self.create_file(name)?;
        let path = self.work.join(name);
        file.write_all(bytes)
            .map_err(|error| Error::from_io(Kind::Io, "cannot write file", &path, error))?;
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
            Error::from_io(Kind::Io, "cannot flush file to disk", &self.work.join(name), error)
        })
    }

    /// Lets the child appear at its place by one rename, and flushes the directory that holds it.
    /// With `overwrite` an older child is swapped out in the same step and removed afterwards.
    ///
    /// # Errors
    /// [`Kind::Output`] where something appeared at the output meanwhile, else [`Kind::Io`].
    pub fn commit(mut self, overwrite: bool) -> Result<()> {
        if self.fsync {
            sync_dir(&self.work, &self.lock)?;
        }
        let swapped = self.rename(overwrite)?;
        self.done = true;
        self.above.0.clear();
        if self.fsync {
            let parent = parent_of(&self.output);
            let handle = File::open(&parent).map_err(|error| {
                Error::from_io(Kind::Io, "cannot open directory", &parent, error)
            })?;
            sync_dir(&parent, &handle)?;
        }
        if swapped && let Err(error) = std::fs::remove_dir_all(&self.work) {
            log::warn!(
                "the child is complete, but the replaced one is left in {}: {error}",
                self.work.display()
            );
        }
        Ok(())
    }

    /// Returns whether an older child now lies in the work directory.
    fn rename(&self, overwrite: bool) -> Result<bool> {
        let failed = |error: rustix::io::Errno| {
            Error::from_io(
                Kind::Io,
                "cannot rename the child to its place",
                &self.output,
                error.into(),
            )
        };
        // An empty directory at the output may be replaced by a plain rename.
        let empty =
            std::fs::read_dir(&self.output).is_ok_and(|mut entries| entries.next().is_none());
        let cwd = rustix::fs::CWD;
        if empty {
            return rustix::fs::rename(&self.work, &self.output).map(|()| false).map_err(failed);
        }
        match rustix::fs::renameat_with(cwd, &self.work, cwd, &self.output, RenameFlags::NOREPLACE)
        {
            Ok(()) => return Ok(false),
            Err(rustix::io::Errno::EXIST) if overwrite => {}
            Err(rustix::io::Errno::EXIST) => {
                return Err(Error::new(Kind::Output, "output appeared while the child was made")
                    .file(&self.output)
                    .expected("nothing there", "another directory")
                    .with_hint("give --overwrite to replace it"));
            }
            // File systems without renameat2 flags.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if !self.output.exists() => {
                return rustix::fs::rename(&self.work, &self.output)
                    .map(|()| false)
                    .map_err(failed);
            }
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if overwrite => {}
            Err(error) => return Err(failed(error)),
        }
        match rustix::fs::renameat_with(cwd, &self.work, cwd, &self.output, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                // No exchange here: the old child is moved aside first, so OUT is absent for a moment.
                let aside = self.work.with_extension("replaced");
                rustix::fs::rename(&self.output, &aside).map_err(failed)?;
                if let Err(error) = rustix::fs::rename(&self.work, &self.output) {
                    let _ = rustix::fs::rename(&aside, &self.output);
                    return Err(failed(error));
                }
                if let Err(error) = std::fs::remove_dir_all(&aside) {
                    log::warn!("the replaced child is left in {}: {error}", aside.display());
                }
                Ok(false)
            }
            Err(error) => Err(failed(error)),
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.done
            && same_directory(&self.lock, &self.work)
            && let Err(error) = std::fs::remove_dir_all(&self.work)
        {
            log::warn!("left on disk: {}: {error}", self.work.display());
        }
    }
}

/// Name of the work directory of an output: hidden, and no name that a loader looks for.
fn work_name(output: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(output.file_name().unwrap_or_default());
    name.push(".partial");
    name
}

fn same_directory(handle: &File, path: &Path) -> bool {
    match (handle.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(a), Ok(b)) => a.dev() == b.dev() && a.ino() == b.ino(),
        _ => false,
    }
}

fn sync_dir(path: &Path, handle: &File) -> Result<()> {
    handle
        .sync_all()
        .map_err(|error| Error::from_io(Kind::Io, "cannot flush directory to disk", path, error))
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

//! `FileSource`: a weight file of a parent, read by position and checked for changes since it was
//! opened.
//!
//! Data is read with `pread`, not mapped: a mapped file that is truncated kills the process.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::checkpoint::files::read_ahead;
use crate::error::{Error, Kind, Result};
use crate::format::{FormatError, ReadAt, Rule};
use crate::tensor::counted;

/// Files that are kept open at once, over all checkpoints of the process.
const OPEN_FILES: usize = 24;

/// What identifies a file and its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Time of the last change of the content, in nanoseconds since 1970.
    pub modified_ns: i128,
    /// Time of the last change of the inode, in nanoseconds since 1970.
    pub changed_ns: i128,
}

impl Identity {
    fn of(meta: &Metadata) -> Identity {
        let nanoseconds =
            |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Identity {
            device: meta.dev(),
            inode: meta.ino(),
            size_bytes: meta.len(),
            modified_ns: nanoseconds(meta.mtime(), meta.mtime_nsec()),
            changed_ns: nanoseconds(meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// A regular file that is opened when needed and may be closed in between.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    identity: Identity,
}

impl FileSource {
    /// Opens a file and remembers its identity.
    ///
    /// # Errors
    /// [`Kind::NoInput`] where it is missing or unreadable, [`Kind::Data`] where it is no regular
    /// file (a directory, FIFO or device; nothing is read from those).
    pub fn open(path: &Path) -> Result<FileSource> {
        let file = open_regular(path)?;
        let meta = file
            .metadata()
            .map_err(|error| Error::from_io(Kind::NoInput, "cannot look at file", path, error))?;
        let identity = Identity::of(&meta);
        Ok(FileSource { path: path.to_path_buf(), identity })
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its identity when it was opened.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Checks that the path still leads to the same, unchanged file.
    ///
    /// # Errors
    /// [`Kind::TryAgain`] where it changed or is gone.
    pub fn check_unchanged(&self) -> Result<()> {
        match std::fs::metadata(&self.path).map(|meta| Identity::of(&meta)) {
            Ok(now) if now == self.identity => Ok(()),
            Ok(now) => Err(self.changed(now)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.vanished(error)),
            Err(error) => Err(Error::from_io(Kind::Io, "cannot look at file", &self.path, error)),
        }
    }

    fn vanished(&self, error: io::Error) -> Error {
        Error::from_io(Kind::TryAgain, "a parent went away while it was read", &self.path, error)
    }

    fn changed(&self, now: Identity) -> Error {
        let then = self.identity;
        let (expected, found) = if now.size_bytes != then.size_bytes {
            (counted(then.size_bytes, "byte"), counted(now.size_bytes, "byte"))
        } else if now.inode != then.inode || now.device != then.device {
            ("the same file".to_owned(), "another one of that name".to_owned())
        } else {
            ("an untouched file".to_owned(), "one written to meanwhile".to_owned())
        };
        Error::new(Kind::TryAgain, "a parent changed while it was read")
            .file(&self.path)
            .expected(expected, found)
            .with_hint("let the download or the training that writes it finish, then merge again")
    }

    fn file(&self) -> io::Result<Arc<File>> {
        let key = (self.identity.device, self.identity.inode);
        if let Some(file) = pool().get(key) {
            return Ok(file);
        }
        let file = open_raw(&self.path)?;
        let now = Identity::of(&file.metadata()?);
        if now != self.identity {
            return Err(io::Error::other(format!("{}", self.changed(now))));
        }
        let file = Arc::new(file);
        pool().put(key, Arc::clone(&file));
        Ok(file)
    }

    /// The crate's error for a failed read of this file; where the file changed, it says so.
    pub fn read_error(&self, what: &str, error: io::Error) -> Error {
        match std::fs::metadata(&self.path).map(|meta| Identity::of(&meta)) {
            Ok(now) if now != self.identity => return self.changed(now),
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => return self.vanished(gone),
            _ => {}
        }
        Error::from_io(Kind::Io, what, &self.path, error)
    }

    /// The crate's error for a file that breaks a rule of its format, or could not be read.
    pub(crate) fn format_error(&self, error: FormatError) -> Error {
        if error.rule == Rule::Read {
            let cause = error.source.unwrap_or_else(|| io::Error::other("read failed"));
            return self.read_error("cannot read checkpoint", cause);
        }
        Error::from_format(&self.path, error)
    }
}

impl ReadAt for FileSource {
    fn len(&self) -> u64 {
        self.identity.size_bytes
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        if end > self.identity.size_bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let file = self.file()?;
        read_ahead::read_exact_at(&file, offset, buffer)
    }
}

fn open_raw(path: &Path) -> io::Result<File> {
    // O_NONBLOCK: opening a FIFO must not wait for its writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let handle = rustix::fs::open(path, flags, Mode::empty())?;
    Ok(File::from(handle))
}

fn open_regular(path: &Path) -> Result<File> {
    // Opening a device can have effects, and opening a socket fails with an obscure error: look
    // first.
    if let Ok(meta) = std::fs::metadata(path)
        && !meta.is_file()
    {
        return Err(not_regular(path, &meta));
    }
    let file = open_raw(path)
        .map_err(|error| Error::from_io(Kind::NoInput, "cannot open file", path, error))?;
    let meta = file
        .metadata()
        .map_err(|error| Error::from_io(Kind::NoInput, "cannot look at file", path, error))?;
    if meta.is_file() {
        return Ok(file);
    }
    Err(not_regular(path, &meta))
}

fn not_regular(path: &Path, meta: &std::fs::Metadata) -> Error {
    let found = if meta.is_dir() { "a directory" } else { "a device, pipe or socket" };
    Error::new(Kind::Data, "not a file to read").file(path).expected("a regular file", found)
}

/// The files that are kept open, the most recently opened last.
struct Pool(Mutex<Handles>);

/// Device and inode number, and the file.
type Handles = VecDeque<((u64, u64), Arc<File>)>;

fn pool() -> &'static Pool {
    static POOL: Pool = Pool(Mutex::new(VecDeque::new()));
    &POOL
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Handles> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: (u64, u64)) -> Option<Arc<File>> {
        self.lock().iter().rev().find(|entry| entry.0 == key).map(|entry| Arc::clone(&entry.1))
    }

    fn put(&self, key: (u64, u64), file: Arc<File>) {
        let mut files = self.lock();
        if files.len() >= OPEN_FILES {
            files.pop_front();
        }
        files.push_back((key, file));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_and_a_directory_are_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let error = FileSource::open(dir.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::from_raw_mode(0o600)).unwrap();
        assert_eq!(FileSource::open(&pipe).unwrap_err().kind(), Kind::Data);
    }

    #[test]
    fn a_file_written_to_after_opening_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        std::fs::write(&path, b"abcd").unwrap();
        let source = FileSource::open(&path).unwrap();
        source.check_unchanged().unwrap();
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(source.check_unchanged().unwrap_err().kind(), Kind::TryAgain);
    }

    #[test]
    fn reading_past_the_end_is_an_error_not_a_short_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        std::fs::write(&path, b"abcd").unwrap();
        let source = FileSource::open(&path).unwrap();
        let mut buffer = [0; 3];
        source.read_exact_at(1, &mut buffer).unwrap();
        assert_eq!(&buffer, b"bcd");
        let error = source.read_exact_at(2, &mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

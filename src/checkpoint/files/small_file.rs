//! Reads the small files beside the weights, up to a size limit: their contents are not trusted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Error, Kind, Result};
use crate::tensor::human_bytes;

/// Whether `path` is there: a regular file, or a link that leads to one.
///
/// # Errors
/// [`Kind::Data`] for a directory or device of that name, [`Kind::NoInput`] for a link to nothing
/// or an unreadable directory.
pub(crate) fn is_present(path: &Path) -> Result<bool> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(true),
        Ok(_) => Err(not_a_file(path)),
        // A link whose target is missing is an interrupted download, not an absent file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::symlink_metadata(path) {
            Ok(_) => Err(Error::from_io(Kind::NoInput, "link to a missing file", path, error)),
            Err(_) => Ok(false),
        },
        Err(error) => Err(Error::from_io(Kind::NoInput, "can't look at file", path, error)),
    }
}

/// Reads a regular file of at most `limit_bytes`. Links are followed.
///
/// # Errors
/// [`Kind::NoInput`] where it can't be opened, [`Kind::Data`] where it is no regular file or
/// larger, [`Kind::Io`] where reading fails.
pub(crate) fn read_bounded(path: &Path, limit_bytes: u64) -> Result<Vec<u8>> {
    let file = open_regular(path)?;
    let too_large = |found: String| {
        let expected = format!("at most {}", human_bytes(limit_bytes));
        Error::new(Kind::Data, "file too large").file(path).expected(expected, found)
    };
    let size_bytes = file
        .metadata()
        .map_err(|error| Error::from_io(Kind::Io, "can't read file", path, error))?
        .len();
    if size_bytes > limit_bytes {
        return Err(too_large(human_bytes(size_bytes)));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed reveals a file that grew meanwhile.
    file.take(limit_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| Error::from_io(Kind::Io, "can't read file", path, error))?;
    if bytes.len() as u64 > limit_bytes {
        return Err(too_large("more".to_owned()));
    }
    Ok(bytes)
}

/// Reads a text file of at most `limit_bytes`.
///
/// # Errors
/// Those of [`read_bounded`]; [`Kind::Data`] where it is not UTF-8 or begins with a byte order
/// mark.
pub(crate) fn read_text_bounded(path: &Path, limit_bytes: u64) -> Result<String> {
    let text = String::from_utf8(read_bounded(path, limit_bytes)?).map_err(|error| {
        let found = format!("another byte at {}", error.utf8_error().valid_up_to());
        Error::new(Kind::Data, "file is not text").file(path).expected("UTF-8", found)
    })?;
    if text.starts_with('\u{feff}') {
        return Err(Error::new(Kind::Data, "file is not JSON")
            .file(path)
            .expected("UTF-8 without a byte order mark", "a byte order mark"));
    }
    Ok(text)
}

/// Checks that a file can be opened for reading.
///
/// # Errors
/// Those of [`read_bounded`] for a file that can't be opened or is no regular one.
pub(crate) fn check_readable(path: &Path) -> Result<()> {
    open_regular(path).map(drop)
}

/// Whether a file of that many bytes is a git-lfs pointer, which stands for a file that was not
/// downloaded.
pub(crate) fn is_lfs_pointer(path: &Path, size_bytes: u64) -> bool {
    // The specification allows less than 1024 bytes.
    size_bytes < 1024
        && read_bounded(path, 1024)
            .is_ok_and(|bytes| bytes.starts_with(b"version https://git-lfs.github.com/spec/"))
}

fn open_regular(path: &Path) -> Result<File> {
    // Not blocking: opening a named pipe would wait for its writer.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(|error| Error::from_io(Kind::NoInput, "can't open file", path, error))?;
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        Ok(_) => Err(not_a_file(path)),
        Err(error) => Err(Error::from_io(Kind::NoInput, "can't look at file", path, error)),
    }
}

fn not_a_file(path: &Path) -> Error {
    Error::new(Kind::Data, "not a regular file").file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_at_the_limit_is_read_and_one_above_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("f");
        fs::write(&path, b"12345").expect("written");
        assert_eq!(read_bounded(&path, 5).expect("fits"), b"12345");
        assert_eq!(read_bounded(&path, 4).expect_err("too large").kind(), Kind::Data);
    }

    #[test]
    fn pipes_and_directories_are_refused_without_waiting() {
        let directory = tempfile::tempdir().expect("a directory");
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .expect("a pipe");
        assert_eq!(read_bounded(&pipe, 5).expect_err("a pipe").kind(), Kind::Data);
        assert_eq!(is_present(&pipe).expect_err("a pipe").kind(), Kind::Data);
        assert_eq!(read_bounded(directory.path(), 5).expect_err("no file").kind(), Kind::Data);
    }

    #[test]
    fn links_are_followed_and_a_dangling_one_is_not_an_absent_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let (target, link) = (directory.path().join("target"), directory.path().join("link"));
        std::os::unix::fs::symlink(&target, &link).expect("a link");
        assert_eq!(is_present(&link).expect_err("dangling").kind(), Kind::NoInput);
        assert!(!is_present(&target).expect("absent"));
        fs::write(&target, b"1").expect("written");
        assert!(is_present(&link).expect("a link to a file"));
        assert_eq!(read_bounded(&link, 1).expect("followed"), b"1");
    }

    #[test]
    fn text_with_a_byte_order_mark_or_other_bytes_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("f");
        for bytes in [&b"\xef\xbb\xbf{}"[..], b"\xff\xfe{\0}\0", b"{\"a\": \"\xed\xa0\x80\"}"] {
            fs::write(&path, bytes).expect("written");
            assert_eq!(read_text_bounded(&path, 99).expect_err("no text").kind(), Kind::Data);
        }
    }
}

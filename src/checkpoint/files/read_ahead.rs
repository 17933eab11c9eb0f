//! Reads by position, and asks the kernel to read ahead where the page cache lacks the data.
//!
//! By itself the kernel reads ahead 128 KiB on most machines: too little for a disk that answers
//! many requests at once. It is not asked for pages that are cached, since looking them up costs
//! time.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;

use rustix::fs::Advice;
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// Bytes asked for beyond a read that the page cache can't serve.
const AHEAD_BYTES: u64 = 8 << 20;

/// Reads shorter than this are of headers and rows, and trigger no read-ahead: what follows may
/// never be needed.
const PIECE_BYTES: usize = 64 << 10;

/// Fills `buffer` from byte `offset` of the file on.
///
/// # Errors
/// `UnexpectedEof` where the file ends before; else what the system says, at once.
pub(super) fn read_exact_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let cached = if buffer.len() < PIECE_BYTES { 0 } else { read_cached(file, offset, buffer)? };
    match buffer.get_mut(cached..) {
        Some(rest) if !rest.is_empty() => {
            file.read_exact_at(rest, offset.saturating_add(cached as u64))
        }
        _ => Ok(()),
    }
}

/// Reads what the page cache holds from `offset` on and returns how many bytes that was; asks the
/// kernel for the rest.
fn read_cached(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let length = buffer.len();
    let read = preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT);
    let cached = match read {
        Ok(bytes) => bytes,
        // Not cached, or the file system can't say.
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INTR | Errno::INVAL | Errno::NOSYS) => 0,
        Err(error) => return Err(error.into()),
    };
    if cached < length {
        let missing = (length - cached) as u64 + AHEAD_BYTES;
        // Only advice: if the kernel ignores it, the read that follows waits longer.
        let start = offset.saturating_add(cached as u64);
        let _ = rustix::fs::fadvise(file, start, NonZeroU64::new(missing), Advice::WillNeed);
    }
    Ok(cached)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of `length` bytes, each of which tells its position.
    fn file(length: usize) -> (File, Vec<u8>) {
        let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        (file, bytes)
    }

    #[test]
    fn pieces_are_read_whether_they_are_cached_or_not() {
        let (file, bytes) = file(3 * PIECE_BYTES);
        file.sync_all().unwrap();
        for drop_first in [false, true] {
            for (offset, extra) in [(0, 0), (7, 1), (PIECE_BYTES + 1, 5)] {
                let length = PIECE_BYTES + extra;
                if drop_first {
                    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
                }
                let mut buffer = vec![0; length];
                read_exact_at(&file, offset as u64, &mut buffer).unwrap();
                assert!(buffer == bytes[offset..offset + length], "{drop_first} {offset}");
            }
        }
    }

    #[test]
    fn a_file_that_ends_too_soon_is_an_error() {
        let (file, _) = file(PIECE_BYTES + 10);
        let error = read_exact_at(&file, 20, &mut vec![0; PIECE_BYTES]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

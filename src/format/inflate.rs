//! Inflates raw deflate (zip method 8) of data whose size is known.

use flate2::{Decompress, FlushDecompress, Status};

use super::error::{FormatError, Rule};
use super::read_at::ReadAt;
use crate::tensor::counted;

/// Most bytes that one byte of deflate can stand for: a match of 258 bytes in two bits.
pub(crate) const MAX_RATIO: u64 = 1032;

/// Compressed bytes read at a time.
const CHUNK_BYTES: u64 = 256 << 10;

/// Decoded bytes given to the sink at a time: a multiple of every element's size.
const PIECE_BYTES: usize = 256 << 10;

/// Inflates the `compressed_bytes` at `offset` of `source`, which must make exactly `size_bytes`.
///
/// Memory grows with what is decoded, never beyond `size_bytes`, and `size_bytes` is refused before
/// anything is read where it is more than deflate can hold in `compressed_bytes`.
///
/// # Errors
/// [`Rule::Inflate`] where the data are broken, shorter or longer than said; [`Rule::Truncated`] and
/// [`Rule::Read`] where they can't be read, or memory runs out.
pub fn inflate_exact(
    source: &dyn ReadAt,
    offset: u64,
    compressed_bytes: u64,
    size_bytes: u64,
) -> Result<Vec<u8>, FormatError> {
    let mut out: Vec<u8> = Vec::new();
    inflate_pieces(source, offset, compressed_bytes, size_bytes, &mut |piece| {
        let no_memory = out.try_reserve(piece.len()).is_err();
        if no_memory {
            return Err(std::io::ErrorKind::OutOfMemory.into());
        }
        out.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(out)
}

/// The same piece by piece, in order and in little memory. `sink` has seen the pieces before an error;
/// an error of its own ends the call with [`Rule::Read`].
///
/// Every piece but the last is a multiple of 16 bytes long.
///
/// # Errors
/// As for [`inflate_exact`].
pub fn inflate_pieces(
    source: &dyn ReadAt,
    offset: u64,
    compressed_bytes: u64,
    size_bytes: u64,
    sink: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(), FormatError> {
    let refuse = |expected: String, found: String| {
        FormatError::new(Rule::Inflate, "deflated data", expected, found).at(offset)
    };
    if size_bytes > compressed_bytes.saturating_mul(MAX_RATIO) {
        let found = format!("{} from {compressed_bytes}", counted(size_bytes, "byte"));
        return Err(refuse(format!("at most {MAX_RATIO} bytes for one"), found));
    }
    let mut inflater = Decompress::new(false);
    let mut chunk = Vec::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut filled = 0usize;
    let mut position = 0u64;
    let mut ended = false;
    while position < compressed_bytes && !ended {
        let length = compressed_bytes.saturating_sub(position).min(CHUNK_BYTES);
        let at = offset
            .checked_add(position)
            .ok_or_else(|| refuse("an end inside the file".to_owned(), "one past it".to_owned()))?;
        chunk.resize(usize::try_from(length).unwrap_or(0), 0);
        source
            .read_exact_at(at, &mut chunk)
            .map_err(|error| FormatError::read("deflated data", at, error))?;
        let mut rest = chunk.as_slice();
        while !ended {
            let (before_in, before_out) = (inflater.total_in(), inflater.total_out());
            let room = piece.get_mut(filled..).unwrap_or_default();
            let status = inflater
                .decompress(rest, room, FlushDecompress::None)
                .map_err(|error| refuse("deflate".to_owned(), error.to_string()))?;
            if inflater.total_out() > size_bytes {
                return Err(refuse(counted(size_bytes, "byte"), "more".to_owned()));
            }
            let eaten = inflater.total_in().saturating_sub(before_in);
            let made = inflater.total_out().saturating_sub(before_out);
            filled = filled.saturating_add(usize::try_from(made).unwrap_or(0));
            rest = usize::try_from(eaten).ok().and_then(|eaten| rest.get(eaten..)).unwrap_or(&[]);
            ended = status == Status::StreamEnd;
            if filled >= PIECE_BYTES {
                sink(&piece).map_err(|error| FormatError::read("deflated data", at, error))?;
                filled = 0;
            } else if rest.is_empty() || (eaten == 0 && made == 0) {
                // The piece has room left, so the inflater holds nothing back.
                break;
            }
        }
        position = position.saturating_add(length);
    }
    if filled > 0 {
        sink(piece.get(..filled).unwrap_or_default())
            .map_err(|error| FormatError::read("deflated data", offset, error))?;
    }
    if inflater.total_in() != compressed_bytes {
        let found = format!("{}", inflater.total_in());
        return Err(refuse(counted(compressed_bytes, "compressed byte"), found));
    }
    if !ended || inflater.total_out() != size_bytes {
        let found = format!("{}{}", inflater.total_out(), if ended { "" } else { ", and no end" });
        return Err(refuse(counted(size_bytes, "byte"), found));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default()
    }

    fn rule(compressed: &[u8], size: u64) -> Result<Vec<u8>, Rule> {
        let length = compressed.len() as u64;
        inflate_exact(&compressed.to_vec(), 0, length, size).map_err(|error| error.rule)
    }

    #[test]
    fn data_of_the_right_size_come_back() {
        let mut state = 7u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(600_000)
        .collect();
        for bytes in [vec![], vec![1], vec![0; 3_000_000], noise] {
            assert_eq!(rule(&deflate(&bytes), bytes.len() as u64), Ok(bytes));
        }
    }

    #[test]
    fn more_or_less_than_the_size_is_refused() {
        let compressed = deflate(&[0; 1000]);
        for size in [0, 999, 1001, u64::MAX] {
            assert_eq!(rule(&compressed, size), Err(Rule::Inflate), "{size}");
        }
    }

    #[test]
    fn cut_and_continued_data_are_refused() {
        let mut compressed = deflate(&[5; 1000]);
        for length in 0..compressed.len() {
            assert_eq!(rule(&compressed[..length], 1000), Err(Rule::Inflate), "{length}");
        }
        compressed.push(0);
        assert_eq!(rule(&compressed, 1000), Err(Rule::Inflate));
    }
}

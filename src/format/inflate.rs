//! Raw deflate (zip method 8), with the size known beforehand.

use flate2::{Decompress, FlushDecompress, Status};

use super::error::{FormatError, Rule};
use super::read_at::ReadAt;

/// Most bytes that one byte of deflate can stand for: a match of 258 bytes in two bits.
pub(crate) const MAX_RATIO: u64 = 1032;

/// Compressed bytes read at a time.
const CHUNK_BYTES: u64 = 256 << 10;

/// Inflates the `compressed_bytes` at `offset` of `source`, which must make exactly `size_bytes`.
///
/// Memory grows with what is decoded, never beyond `size_bytes`, and `size_bytes` is refused before
/// anything is read where it is more than deflate can hold in `compressed_bytes`.
///
/// # Errors
/// [`Rule::Inflate`] where the data are broken, shorter or longer than said; [`Rule::Truncated`] and
/// [`Rule::Read`] where they can't be read, or memory is not to be had.
pub fn inflate_exact(
    source: &dyn ReadAt,
    offset: u64,
    compressed_bytes: u64,
    size_bytes: u64,
) -> Result<Vec<u8>, FormatError> {
    let refuse = |expected: String, found: String| {
        FormatError::new(Rule::Inflate, "deflated data", expected, found).at(offset)
    };
    if size_bytes > compressed_bytes.saturating_mul(MAX_RATIO) {
        let found = format!("{size_bytes} bytes from {compressed_bytes}");
        return Err(refuse(format!("at most {MAX_RATIO} bytes for one"), found));
    }
    let no_memory =
        |_| FormatError::read("deflated data", offset, std::io::ErrorKind::OutOfMemory.into());
    let size = usize::try_from(size_bytes).map_err(|_| no_memory(()))?;
    let mut out: Vec<u8> = Vec::new();
    let mut inflater = Decompress::new(false);
    let mut chunk = Vec::new();
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
            let room = size.saturating_sub(out.len());
            // One byte beyond the end shows data that are longer than said.
            let grow = room.saturating_add(1).min(out.len().max(1 << 16));
            out.try_reserve(grow).map_err(|_| no_memory(()))?;
            let before_in = inflater.total_in();
            let before_out = out.len();
            let status = inflater
                .decompress_vec(rest, &mut out, FlushDecompress::None)
                .map_err(|error| refuse("deflate".to_owned(), error.to_string()))?;
            if out.len() > size {
                return Err(refuse(format!("{size_bytes} bytes"), "more".to_owned()));
            }
            let eaten = inflater.total_in().saturating_sub(before_in);
            rest = usize::try_from(eaten).ok().and_then(|eaten| rest.get(eaten..)).unwrap_or(&[]);
            ended = status == Status::StreamEnd;
            if rest.is_empty() && out.len() < out.capacity()
                || (eaten == 0 && out.len() == before_out)
            {
                break;
            }
        }
        position = position.saturating_add(length);
    }
    if inflater.total_in() != compressed_bytes {
        let found = format!("{}", inflater.total_in());
        return Err(refuse(format!("{compressed_bytes} compressed bytes"), found));
    }
    if !ended || out.len() != size {
        let found = format!("{}{}", out.len(), if ended { "" } else { ", and no end" });
        return Err(refuse(format!("{size_bytes} bytes"), found));
    }
    Ok(out)
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

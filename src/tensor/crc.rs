//! Computes the CRC-32 of zip files (ISO-HDLC): of bytes, of a stream, and of consecutive runs
//! joined.

use crc_fast::CrcAlgorithm::Crc32IsoHdlc;
use crc_fast::Digest;

/// CRC-32 of bytes.
pub fn crc32(bytes: &[u8]) -> u32 {
    thirty_two(crc_fast::checksum(Crc32IsoHdlc, bytes))
}

/// The crate returns CRCs of every width in 64 bits; this one has 32.
fn thirty_two(crc: u64) -> u32 {
    u32::try_from(crc).unwrap_or_default()
}

/// CRC-32 and length of a run of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crc {
    /// The CRC-32.
    pub crc32: u32,
    /// Length of the run.
    pub bytes: u64,
}

impl Crc {
    /// The CRC of consecutive runs, in order.
    pub fn joined(runs: impl Iterator<Item = Crc>) -> Crc {
        runs.fold(Crc::default(), |all, next| {
            if all.bytes == 0 {
                return next;
            }
            let joined = crc_fast::checksum_combine(
                Crc32IsoHdlc,
                u64::from(all.crc32),
                u64::from(next.crc32),
                next.bytes,
            );
            Crc { crc32: thirty_two(joined), bytes: all.bytes.saturating_add(next.bytes) }
        })
    }
}

/// The CRC of a run of bytes that arrives in parts.
pub struct RunningCrc(Digest);

impl Default for RunningCrc {
    fn default() -> RunningCrc {
        RunningCrc::new()
    }
}

impl RunningCrc {
    /// The CRC of no bytes.
    pub fn new() -> RunningCrc {
        RunningCrc(Digest::new(Crc32IsoHdlc))
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.0.get_amount()
    }

    /// The CRC of all bytes so far.
    pub fn crc(&self) -> Crc {
        Crc { crc32: thirty_two(self.0.finalize()), bytes: self.0.get_amount() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `zlib.crc32(b"123456789")`
    const EXPECTED: u32 = 0xcbf4_3926;

    #[test]
    fn crc_is_that_of_zip() {
        assert_eq!(crc32(b"123456789"), EXPECTED);
    }

    #[test]
    fn joined_crcs_are_the_crc_of_the_whole() {
        let part = |bytes: &[u8]| Crc { crc32: crc32(bytes), bytes: bytes.len() as u64 };
        let joined = Crc::joined([part(b"1234"), part(b""), part(b"56789")].into_iter());
        assert_eq!((joined.crc32, joined.bytes), (EXPECTED, 9));
    }

    #[test]
    fn a_crc_taken_in_parts_is_that_of_the_whole() {
        let mut running = RunningCrc::new();
        for part in [&b"12345"[..], b"", b"6789"] {
            running.update(part);
        }
        assert_eq!(running.crc(), Crc { crc32: EXPECTED, bytes: 9 });
        assert_eq!(running.bytes(), 9);
    }
}

//! Lists every record of an archive, for checks that go beyond the tensors.

use crate::format::error::FormatError;
use crate::format::read_at::ReadAt;
use crate::format::state_dict::Encoding;
use crate::format::torch::zip::directory;

/// One record of an archive and where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveRecord {
    /// Name as it stands in the archive, folder included.
    pub name: String,
    /// Byte position of the stored data in the file.
    pub file_offset: u64,
    /// Bytes once decoded.
    pub size_bytes: u64,
    /// How the bytes are stored.
    pub encoding: Encoding,
    /// CRC-32 of the decoded bytes; `None` where it was never computed (a stored 0).
    pub crc32: Option<u32>,
}

/// All records of a zip archive, in the order of their bytes: the pickle, the storages (also those
/// that no tensor uses) and everything beside them. Directories are left out.
///
/// Reads the directory and the headers, no payload.
///
/// # Errors
/// What [`crate::format::read_state_dict`] refuses of an archive's structure.
pub fn archive_records(source: &dyn ReadAt) -> Result<Vec<ArchiveRecord>, FormatError> {
    let mut records: Vec<ArchiveRecord> = directory::read(source)?
        .into_iter()
        .filter(|entry| !entry.is_directory())
        .map(|entry| ArchiveRecord {
            file_offset: entry.data_offset,
            size_bytes: entry.size_bytes,
            encoding: entry.encoding(),
            crc32: entry.known_crc32(),
            name: entry.name,
        })
        .collect();
    records.sort_by_key(|record| record.file_offset);
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::error::Rule;

    const PLAIN: &[u8] = include_bytes!("../../../../tests/data/format/plain.bin");

    #[test]
    fn every_record_of_a_file_that_torch_wrote_has_the_crc_of_its_bytes() {
        let records = archive_records(&PLAIN.to_vec()).expect("an archive");
        assert!(records.iter().any(|record| record.name.ends_with("/data.pkl")));
        assert!(records.iter().any(|record| record.name.ends_with("/version")));
        for record in &records {
            let start = record.file_offset as usize;
            let bytes = &PLAIN[start..start + record.size_bytes as usize];
            let crc = crate::tensor::crc32(bytes);
            assert_eq!(record.crc32, Some(crc), "{}", record.name);
        }
        assert!(records.is_sorted_by_key(|record| record.file_offset));
    }

    #[test]
    fn a_cut_archive_is_refused() {
        let cut = PLAIN[..PLAIN.len() - 1].to_vec();
        assert_eq!(archive_records(&cut).map_err(|error| error.rule), Err(Rule::Truncated));
    }
}

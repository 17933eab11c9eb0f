//! Memory limits for reading a pickle: one budget for the parsed values, and an equal one for what
//! is built from them.

use crate::format::error::{FormatError, Rule};

/// Memory that every pickle may take, in bytes.
const FREE_BYTES: u64 = 8 << 20;

/// Bytes of memory for each byte of the pickle that was read, beyond that. The pickle of a state
/// dict takes up to three and a half.
const BYTES_PER_BYTE: u64 = 4;

/// Bytes of the file that add one byte of memory: training checkpoints keep long lists of small numbers
/// beside their weights.
const FILE_BYTES_PER_BYTE: u64 = 16;

/// Most memory that the file's size adds, in bytes: a sparse file may have any length.
const MOST_FOR_FILE: u64 = 128 << 20;

/// Bytes of memory that values may take once `read` bytes of their pickle were read.
pub(super) fn budget(read: u64, file_bytes: u64) -> u64 {
    let for_file = (file_bytes / FILE_BYTES_PER_BYTE).min(MOST_FOR_FILE);
    read.saturating_mul(BYTES_PER_BYTE).saturating_add(FREE_BYTES).saturating_add(for_file)
}

/// A budget as messages word it.
pub(super) fn worded(what: &str, budget: u64) -> String {
    format!("{what} of at most {} MB for this file", budget >> 20)
}

/// Memory that tensors, storages and names made of a pickle's values may still take.
#[derive(Debug)]
pub(crate) struct Room {
    most: u64,
    left: u64,
}

impl Room {
    /// A room of `most` bytes, nothing of it taken.
    pub(super) fn new(most: u64) -> Room {
        Room { most, left: most }
    }

    /// Takes bytes off what is left.
    ///
    /// # Errors
    /// [`Rule::PickleLimit`] where there are not as many.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), FormatError> {
        let Some(left) = self.left.checked_sub(bytes as u64) else {
            let expected = worded("tensors", self.most);
            return Err(FormatError::new(Rule::PickleLimit, "state dict", expected, "more"));
        };
        self.left = left;
        Ok(())
    }
}

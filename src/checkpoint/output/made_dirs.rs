//! Makes the directories missing above an output, and removes them again if no child appears.

use std::path::{Path, PathBuf};

use crate::checkpoint::files::paths::parent_of;
use crate::checkpoint::output::directory::sync_dir;
use crate::error::Result;

/// Directories that were made, deepest first. Removed on drop where they are still empty.
#[derive(Debug, Default)]
pub(super) struct MadeDirs(Vec<PathBuf>);

impl MadeDirs {
    /// Makes `dir` and what is missing above it.
    pub(super) fn make(dir: &Path) -> std::io::Result<MadeDirs> {
        let missing = dir.ancestors().take_while(|above| {
            !above.as_os_str().is_empty() && std::fs::symlink_metadata(above).is_err()
        });
        let made = MadeDirs(missing.map(Path::to_path_buf).collect());
        if !made.0.is_empty() {
            std::fs::create_dir_all(dir)?;
        }
        Ok(made)
    }

    /// Keeps them.
    pub(super) fn stay(&mut self) {
        self.0.clear();
    }

    /// Flushes the directories that hold them, so that they survive a power cut.
    pub(super) fn flush(&self) -> Result<()> {
        self.0.iter().try_for_each(|dir| sync_dir(&parent_of(dir)))
    }
}

impl Drop for MadeDirs {
    fn drop(&mut self) {
        // Another run may be using them by now: one that is not empty stays.
        self.0.iter().all(|dir| std::fs::remove_dir(dir).is_ok());
    }
}

//! Renames a complete child to its output, all or nothing, in exchange for an older child where
//! there is one.

use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, rename, renameat_with};
use rustix::io::Errno;

use crate::error::{Error, Kind, Result};

/// What was at the output before the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replaced {
    /// Nothing, or an empty directory.
    Nothing,
    /// An older child, now in the work directory.
    Swapped,
    /// An older child, now at [`aside`].
    Aside,
}

/// Where an older child is kept meanwhile, on file systems that can't swap two directories.
pub(super) fn aside(work: &Path) -> PathBuf {
    work.with_extension("replaced")
}

/// Renames the complete child `work` to `output`; with `overwrite` an older child is swapped out.
///
/// # Errors
/// [`Kind::Output`] where something appeared at the output meanwhile, else [`Kind::Io`].
pub(super) fn swap_in(work: &Path, output: &Path, overwrite: bool) -> Result<Replaced> {
    let failed = |error: Errno| {
        Error::from_io(Kind::Io, "cannot rename the child to its place", output, error.into())
    };
    let plainly = || rename(work, output).map(|()| Replaced::Nothing).map_err(failed);
    // An empty directory at the output may be replaced by a plain rename.
    if std::fs::read_dir(output).is_ok_and(|mut entries| entries.next().is_none()) {
        return plainly();
    }
    match renameat_with(CWD, work, CWD, output, RenameFlags::NOREPLACE) {
        Ok(()) => return Ok(Replaced::Nothing),
        Err(Errno::EXIST) if overwrite => {}
        Err(Errno::EXIST) => {
            return Err(Error::new(Kind::Output, "output appeared while the child was made")
                .file(output)
                .expected("nothing there", "another directory")
                .with_hint("give --overwrite to replace it"));
        }
        // A file system without the flags of renameat2. A plain rename replaces empty directories
        // only.
        Err(Errno::INVAL | Errno::NOSYS) if !output.exists() => return plainly(),
        Err(Errno::INVAL | Errno::NOSYS) if overwrite => {}
        Err(error) => return Err(failed(error)),
    }
    match renameat_with(CWD, work, CWD, output, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(Replaced::Swapped),
        Err(Errno::INVAL | Errno::NOSYS) => {
            // No exchange: the older child is moved aside, so the output is absent for a moment.
            let aside = aside(work);
            rename(output, &aside).map_err(failed)?;
            if let Err(error) = rename(work, output) {
                let _ = rename(&aside, output);
                return Err(failed(error));
            }
            Ok(Replaced::Aside)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Undoes [`swap_in`] after a failed flush; returns whether that worked.
pub(super) fn undo(work: &Path, output: &Path, replaced: Replaced) -> bool {
    match replaced {
        Replaced::Nothing => rename(output, work).is_ok(),
        Replaced::Swapped => renameat_with(CWD, work, CWD, output, RenameFlags::EXCHANGE).is_ok(),
        Replaced::Aside => rename(output, work).is_ok() && rename(aside(work), output).is_ok(),
    }
}

/// Recovers from a crash between the two renames of a file system without exchange: the older child
/// goes back to the output, or is removed where the new one is there.
pub(super) fn recover(work: &Path, output: &Path) -> std::io::Result<()> {
    let aside = aside(work);
    if std::fs::symlink_metadata(&aside).is_err() {
        return Ok(());
    }
    if output.exists() {
        log::warn!("removed the replaced child in {}", aside.display());
        return std::fs::remove_dir_all(&aside);
    }
    log::warn!("put the older child back to {}", output.display());
    Ok(rename(&aside, output)?)
}

//! Checks an output before any work: that it may be written, lies apart from the parents, and has
//! room on its disk.

use std::ffi::CString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::checkpoint::files::paths::{parent_of, resolved};
use crate::checkpoint::output::existing::PROVENANCE_FILE;
use crate::checkpoint::output::mount_point::{is_mount_point, is_vacant};
use crate::checkpoint::output::work_dir::work_dir;
use crate::error::{Error, Kind, Result};
use crate::tensor::{counted, human_bytes};

/// Unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

/// Spare room, as a fraction of the child's bytes: 1 %.
const SPARE_DIVISOR: u64 = 100;

/// Checks that a child may appear at `output`.
///
/// `parents` are the paths of the parents (directories or files).
///
/// # Errors
/// [`Kind::Output`] where it exists and is not empty (without `overwrite`), is no directory, is
/// equal to, inside or around a parent (compared by device and inode, so through links too), or
/// where the directory that would hold it is missing or not writable.
pub fn check_output(output: &Path, parents: &[&Path], overwrite: bool) -> Result<()> {
    if output.as_os_str().is_empty() || output.file_name().is_none() {
        return Err(Error::new(Kind::Output, "output has no name")
            .file(output)
            .with_hint("name a directory that is to be made, e.g. `-o child`"));
    }
    check_apart(output, parents)?;
    match std::fs::symlink_metadata(output) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(Error::from_io(Kind::Output, "cannot look at output", output, error));
        }
        Ok(meta) if meta.is_symlink() => {
            return Err(Error::new(Kind::Output, "output is a symbolic link")
                .file(output)
                .expected("a new or empty directory", "a link")
                .with_hint("name the directory that it leads to"));
        }
        Ok(meta) if !meta.is_dir() => {
            return Err(Error::new(Kind::Output, "output exists and is no directory")
                .file(output)
                .expected("a new or empty directory", "a file"));
        }
        Ok(_) if is_mount_point(output) => {
            if !is_vacant(output, &work_dir(output))? {
                return Err(Error::new(Kind::Output, "output is a mount point with files in it")
                    .file(output)
                    .expected("an empty one", "files")
                    .with_hint("name a directory in it; a mount point can't be replaced"));
            }
            return check_writable(output);
        }
        Ok(_) => {
            let mut entries = std::fs::read_dir(output).map_err(|error| {
                Error::from_io(Kind::Output, "cannot list output", output, error)
            })?;
            if !overwrite && entries.next().is_some() {
                return Err(Error::new(Kind::Output, "output exists")
                    .file(output)
                    .expected("a new or empty directory", "one with files in it")
                    .with_hint(match output.join(PROVENANCE_FILE).exists() {
                        true => "give another -o, or --overwrite to replace it",
                        false => {
                            "this tool did not make what is there; give another -o, or --overwrite \
                             to replace all of it"
                        }
                    }));
            }
        }
    }
    check_writable(&parent_of(output))
}

/// Free space on the file system that will hold an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Device number of the file system.
    pub device: u64,
    /// Nearest directory above the output that exists.
    pub dir: PathBuf,
    /// Bytes free to this user.
    pub free_bytes: u64,
    /// Files that may still be made; `None` where the file system has no such limit.
    pub free_files: Option<u64>,
    /// Bytes and files, counted as free, that an interrupted run to this output holds.
    left: (u64, u64),
}

/// Free space where `output` would be made. What an interrupted run left there counts as free: it
/// is used again or removed.
///
/// # Errors
/// [`Kind::Output`] where the system can't say.
pub fn room_at(output: &Path) -> Result<Room> {
    let dir = if is_mount_point(output) {
        output.to_path_buf()
    } else {
        nearest_existing(&parent_of(output))
    };
    let failed = |error| Error::from_io(Kind::Output, "cannot ask for free space", &dir, error);
    let stat = rustix::fs::statvfs(&dir).map_err(|error| failed(error.into()))?;
    let device = std::fs::metadata(&dir).map_err(failed)?.dev();
    let left @ (left_bytes, left_files) = left_by_earlier_run(output);
    let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize).saturating_add(left_bytes);
    let free_files = (stat.f_files > 0).then(|| stat.f_favail.saturating_add(left_files));
    Ok(Room { device, dir, free_bytes, free_files, left })
}

impl Room {
    /// Checks that there is room for `bytes` and 1 % more.
    ///
    /// # Errors
    /// [`Kind::Output`] with both figures where there is not.
    pub fn check(&self, bytes: u64) -> Result<()> {
        let (needed, free) = (bytes.saturating_add(bytes / SPARE_DIVISOR), self.free_bytes);
        if free >= needed {
            return Ok(());
        }
        Err(self.refused(
            format!("{} free ({needed} bytes)", human_bytes(needed)),
            format!("{} ({free} bytes)", human_bytes(free)),
        ))
    }

    /// Checks that `files` files may be made.
    ///
    /// # Errors
    /// [`Kind::Output`] with both figures where fewer are free.
    pub fn check_files(&self, files: u64) -> Result<()> {
        match self.free_files {
            Some(free) if free < files => {
                Err(self.refused(counted(files, "free inode"), free.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Adds what an interrupted run to another output on the same file system holds.
    pub fn join(&mut self, other: &Room) {
        self.free_bytes = self.free_bytes.saturating_add(other.left.0);
        self.free_files = self.free_files.map(|files| files.saturating_add(other.left.1));
    }

    fn refused(&self, expected: String, found: String) -> Error {
        Error::new(Kind::Output, "not enough room for the child")
            .file(&self.dir)
            .expected(expected, found)
            .with_hint("free some space or give an -o on another disk; nothing was written")
    }
}

/// Checks that the file systems of the outputs have room for `bytes` and 1 % more, in `files`
/// files, for each output.
///
/// # Errors
/// [`Kind::Output`] with both figures where one lacks it.
pub fn check_room(outputs: &[PathBuf], bytes: u64, files: u64) -> Result<()> {
    // The work directory and its journal; while the journal is rewritten there are two.
    let files = files.saturating_add(3);
    let mut rooms: Vec<(Room, u64)> = Vec::new();
    for output in outputs {
        let room = room_at(output)?;
        match rooms.iter_mut().find(|known| known.0.device == room.device) {
            Some(known) => {
                known.0.join(&room);
                known.1 += 1;
            }
            None => rooms.push((room, 1)),
        }
    }
    rooms.iter().try_for_each(|(room, children)| {
        room.check(bytes.saturating_mul(*children))?;
        room.check_files(files.saturating_mul(*children))
    })
}

fn nearest_existing(path: &Path) -> PathBuf {
    let mut current = path.to_path_buf();
    while !current.exists() {
        let parent = parent_of(&current);
        if parent == current || parent.as_os_str() == "." {
            return PathBuf::from(".");
        }
        current = parent;
    }
    current
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Checks that an output is neither a parent nor in or around one.
///
/// # Errors
/// [`Kind::Output`], as [`check_output`].
pub fn check_apart(output: &Path, parents: &[&Path]) -> Result<()> {
    let real_output = resolved(output);
    let refused = |what: &str, parent: &Path| {
        Err(Error::new(Kind::Output, what)
            .file(output)
            .expected(
                "a directory apart from both parents",
                format!("parent `{}`", parent.display()),
            )
            .with_hint("give another -o"))
    };
    for parent in parents {
        let parent_id = identity(parent);
        if parent_id.is_some() && identity(&real_output) == parent_id {
            return refused("output is a parent", parent);
        }
        if parent_id.is_some()
            && real_output.ancestors().skip(1).any(|above| identity(above) == parent_id)
        {
            return refused("output is inside a parent", parent);
        }
        let real_parent = resolved(parent);
        let output_id = identity(&real_output);
        if output_id.is_some()
            && real_parent.ancestors().skip(1).any(|above| identity(above) == output_id)
        {
            return refused("a parent is inside the output", parent);
        }
    }
    Ok(())
}

fn check_writable(dir: &Path) -> Result<()> {
    let dir = nearest_existing(dir);
    let refused = |error: rustix::io::Errno| {
        Err(Error::from_io(
            Kind::Output,
            "cannot write into the output's directory",
            &dir,
            error.into(),
        ))
    };
    if CString::new(dir.as_os_str().as_encoded_bytes()).is_err() {
        return refused(rustix::io::Errno::INVAL);
    }
    if let Err(error) = rustix::fs::access(&dir, rustix::fs::Access::WRITE_OK) {
        return refused(error);
    }
    match rustix::fs::statvfs(&dir) {
        Ok(stat) if stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) => {
            refused(rustix::io::Errno::ROFS)
        }
        _ => Ok(()),
    }
}

/// Bytes on disk and number of files that an interrupted run to this output left.
fn left_by_earlier_run(output: &Path) -> (u64, u64) {
    let Ok(entries) = std::fs::read_dir(work_dir(output)) else { return (0, 0) };
    let sizes = entries.flatten().filter_map(|entry| entry.metadata().ok());
    sizes.fold((0, 0), |(bytes, files), meta| (bytes + meta.blocks() * BLOCK_BYTES, files + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(output: &Path, parents: &[&Path]) -> String {
        let error = check_output(output, parents, false).unwrap_err();
        assert_eq!(error.kind(), Kind::Output);
        error.to_string()
    }

    #[test]
    fn an_output_equal_to_inside_or_around_a_parent_is_refused_through_links_too() {
        let dir = tempfile::tempdir().unwrap();
        let parent = dir.path().join("models/a");
        std::fs::create_dir_all(&parent).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&parent, &link).unwrap();
        assert!(refusal(&parent, &[&parent]).starts_with("output is a parent"));
        assert!(refusal(&parent.join("child/deep"), &[&parent]).contains("inside a parent"));
        assert!(refusal(&link.join("child"), &[&parent]).contains("inside a parent"));
        assert!(refusal(&parent.join("../../models"), &[&parent]).contains("inside the output"));
    }

    #[test]
    fn a_directory_with_files_is_refused_and_an_empty_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("child");
        std::fs::create_dir(&output).unwrap();
        check_output(&output, &[], false).unwrap();
        std::fs::write(output.join("x"), b"").unwrap();
        assert!(refusal(&output, &[]).starts_with("output exists"));
        check_output(&output, &[], true).unwrap();
    }

    #[test]
    fn more_bytes_than_the_disk_has_are_refused_with_both_figures() {
        let dir = tempfile::tempdir().unwrap();
        let outputs = [dir.path().join("child"), dir.path().join("new/child")];
        let free = room_at(&outputs[0]).unwrap().free_bytes;
        let error = check_room(&outputs, free / 2 + 1, 1).unwrap_err();
        assert_eq!(error.kind(), Kind::Output);
        check_room(&outputs, 1, 1).unwrap();
    }

    #[test]
    fn more_files_than_the_disk_has_inodes_are_refused() {
        let room = Room {
            device: 0,
            dir: ".".into(),
            free_bytes: 1 << 20,
            free_files: Some(4),
            left: (0, 0),
        };
        assert!(room.check_files(5).unwrap_err().to_string().contains("5 free inodes, found 4"));
        room.check_files(4).unwrap();
        Room { free_files: None, ..room }.check_files(5).unwrap();
    }
}

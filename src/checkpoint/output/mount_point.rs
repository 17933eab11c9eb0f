//! Puts a child at an output that is a mount point. No directory can be renamed onto it, so the
//! child's files are moved into it one by one. That is weaker than one rename: a marker says that
//! the child is incomplete until the last file is there.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use crate::checkpoint::files::small_file::read_bounded;
use crate::error::{Error, Kind, Result};

/// The marker: a file of this name says that the directory holds part of a child, and lists its
/// files.
const MARKER: &str = ".INCOMPLETE";

/// The directory that mkfs leaves in a new file system.
const OF_THE_SYSTEM: &str = "lost+found";

/// Largest marker that is read.
const LIMIT_BYTES: u64 = 16 << 20;

/// Whether a file system is mounted at `path`.
pub(super) fn is_mount_point(path: &Path) -> bool {
    statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)
        .is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Whether a mount point holds nothing but what mkfs and an interrupted run left.
///
/// # Errors
/// [`Kind::Output`] where it can't be listed.
pub(super) fn is_vacant(output: &Path, work: &Path) -> Result<bool> {
    let failed = |error| Error::from_io(Kind::Output, "cannot list output", output, error);
    let moved = moved(output).unwrap_or_default();
    for entry in std::fs::read_dir(output).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let ours = name == MARKER || Some(name.as_os_str()) == work.file_name();
        if !ours && name != OF_THE_SYSTEM && !moved.contains(&name) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a marker says that `output` holds only part of a child.
pub fn is_marked(output: &Path) -> bool {
    std::fs::symlink_metadata(output.join(MARKER)).is_ok()
}

/// The child's files, as the marker lists them; none where there is no marker.
fn moved(output: &Path) -> Result<Vec<OsString>> {
    if !is_marked(output) {
        return Ok(Vec::new());
    }
    let text = read_bounded(&output.join(MARKER), LIMIT_BYTES)?;
    let names = String::from_utf8_lossy(&text).lines().map(OsString::from).collect::<Vec<_>>();
    // Plain names only, so that nothing outside the directory is touched.
    Ok(names.into_iter().filter(|name| Path::new(name).file_name() == Some(name)).collect())
}

/// Removes the part of a child that is in `output`, the marker last. A folder that is still in the
/// work directory was not moved, so one of its name in `output` is not ours.
///
/// # Errors
/// [`Kind::Output`] with the path.
pub(super) fn take_out(work: &Path, output: &Path) -> Result<()> {
    for name in moved(output)?.iter().map(OsString::as_os_str).chain([OsStr::new(MARKER)]) {
        let path = output.join(name);
        let is_folder = std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
        if is_folder && work.join(name).exists() {
            continue;
        }
        let removed = match is_folder {
            true => std::fs::remove_dir_all(&path),
            false => std::fs::remove_file(&path),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::from_io(Kind::Output, "cannot remove file", &path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Moves the files of the complete child from `work`, a directory in `output`, up into `output`:
/// weights first, the index and config.json last. Where that fails, they are removed.
///
/// # Errors
/// [`Kind::Io`] with the path.
pub(super) fn put_inside(work: &Path, output: &Path, fsync: bool) -> Result<()> {
    let result = move_up(work, output, fsync).map_err(|error| {
        Error::from_io(Kind::Io, "cannot move the child into output", output, error)
    });
    if result.is_err()
        && let Err(error) = take_out(work, output)
    {
        log::warn!("part of a child is left: {error}");
    }
    result
}

fn move_up(work: &Path, output: &Path, fsync: bool) -> io::Result<()> {
    let flush = || if fsync { File::open(output)?.sync_all() } else { Ok(()) };
    let mut names = std::fs::read_dir(work)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort_by_key(|name| (rank(name), name.clone()));
    let mut marker = File::create_new(work.join(MARKER))?;
    for name in &names {
        marker.write_all(name.as_encoded_bytes())?;
        marker.write_all(b"\n")?;
    }
    if fsync {
        marker.sync_all()?;
    }
    std::fs::rename(work.join(MARKER), output.join(MARKER))?;
    flush()?;
    for name in &names {
        // Replacing a file of that name is fine: the directory was vacant when the run began.
        std::fs::rename(work.join(name), output.join(name))?;
    }
    flush()?;
    std::fs::remove_file(output.join(MARKER))?;
    flush()
}

/// Order of moving: loaders look for config.json and the index first, so these come last.
fn rank(name: &OsStr) -> u8 {
    match name.to_str() {
        Some("config.json") => 3,
        Some(name) if name.ends_with(".index.json") => 2,
        Some(name) if name.ends_with(".bin") => 0,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, names: &[&str]) {
        names.iter().for_each(|name| std::fs::write(dir.join(name), name).unwrap());
    }

    fn listing(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_child_is_moved_up_and_the_marker_goes() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().join("work");
        std::fs::create_dir(&work).unwrap();
        write(&work, &["config.json", "pytorch_model.bin", "tokenizer.json"]);
        std::fs::create_dir(work.join("1_Pooling")).unwrap();
        write(&work, &["1_Pooling/config.json"]);
        put_inside(&work, dir.path(), true).unwrap();
        assert!(dir.path().join("1_Pooling/config.json").exists());
        let names = ["1_Pooling", "config.json", "pytorch_model.bin", "tokenizer.json", "work"];
        assert_eq!(listing(dir.path()), names);
        assert!(listing(&work).is_empty());
    }

    #[test]
    fn part_of_a_child_is_vacant_and_taken_out_and_other_files_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().join("work");
        std::fs::create_dir(&work).unwrap();
        write(dir.path(), &["pytorch_model.bin"]);
        assert!(!is_vacant(dir.path(), &work).unwrap());
        let marker = "pytorch_model.bin\nconfig.json\n../theirs\n/etc/theirs\n";
        std::fs::write(dir.path().join(MARKER), marker).unwrap();
        assert!(is_vacant(dir.path(), &work).unwrap());
        write(dir.path(), &["theirs"]);
        assert!(!is_vacant(dir.path(), &work).unwrap());
        take_out(&work, dir.path()).unwrap();
        assert_eq!(listing(dir.path()), ["theirs", "work"]);
    }

    #[test]
    fn a_file_that_cannot_be_moved_takes_all_of_them_out() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().join("work");
        std::fs::create_dir(&work).unwrap();
        write(&work, &["config.json", "pytorch_model.bin"]);
        std::fs::create_dir(dir.path().join("config.json")).unwrap();
        write(&dir.path().join("config.json"), &["theirs"]);
        assert_eq!(put_inside(&work, dir.path(), false).unwrap_err().kind(), Kind::Io);
        assert_eq!(listing(dir.path()), ["config.json", "work"]);
        assert_eq!(listing(&dir.path().join("config.json")), ["theirs"]);
    }
}

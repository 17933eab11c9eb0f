//! Optional strict checks on a parent: refuse links that leave its directory (`no_follow`) and
//! weight files with bytes that no CRC-32 covers (`require_checksums`).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checkpoint::files::paths::parent_of;
use crate::checkpoint::files::source::FileSource;
use crate::checkpoint::parent::checkpoint::Checkpoint;
use crate::error::{Error, Kind, Result};
use crate::format::{Container, OpaqueNames, archive_records};
use crate::tensor::escape;

/// What is refused although nothing is wrong with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strictness {
    /// Refuse links out of the parent's directory.
    pub no_follow: bool,
    /// Refuse weight files with bytes that no CRC-32 covers.
    pub require_checksums: bool,
}

/// How a parent is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// What to refuse although nothing is wrong with it.
    pub strictness: Strictness,
    /// Names of other programs' objects that may be beside the weights.
    pub opaque: OpaqueNames,
}

impl Strictness {
    /// Refuses an opened checkpoint that does not meet these demands.
    ///
    /// # Errors
    /// [`Kind::Data`] for the first link out of the directory or file without checksums.
    pub(super) fn check(self, checkpoint: &Checkpoint) -> Result<()> {
        if self.no_follow {
            let path = checkpoint.dir.as_deref().unwrap_or(&checkpoint.path);
            links_out(path)?.into_iter().next().map_or(Ok(()), Err)?;
            // What was opened is what the links lead to now.
            checkpoint.check_unchanged()?;
        }
        if self.require_checksums {
            for (file, container) in checkpoint.files.iter().zip(&checkpoint.containers) {
                check_sums(file, *container)?;
            }
        }
        Ok(())
    }
}

/// Refusals of all links that lead out of a model's directory; for a single file, of the file
/// itself. Links to directories are allowed, since nothing is read through them. Links in folders
/// are checked when their files are selected for copying.
///
/// # Errors
/// [`Kind::NoInput`] where the directory can't be listed.
pub(crate) fn links_out(model: &Path) -> Result<Vec<Error>> {
    let failed = |error| Error::from_io(Kind::NoInput, "cannot look for links", model, error);
    // The model itself may be given by a link; what is in it may not lead out.
    let (home, paths) = if model.is_dir() {
        let entries = std::fs::read_dir(model).map_err(failed)?;
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.map_err(failed)?.path());
        }
        paths.sort();
        (model.canonicalize().map_err(failed)?, paths)
    } else {
        (parent_of(model).canonicalize().map_err(failed)?, vec![model.to_path_buf()])
    };
    Ok(paths.iter().filter_map(|path| link_out(path, &home)).collect())
}

/// The refusal of a link that leads out of `home`, a path without links.
pub(crate) fn link_out(path: &Path, home: &Path) -> Option<Error> {
    if !std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()) {
        return None;
    }
    // A dangling link is refused when it is read.
    let target: PathBuf = path.canonicalize().ok()?;
    if target.starts_with(home) || target.is_dir() {
        return None;
    }
    let found = format!("`{}`", escape(&target.to_string_lossy()));
    Some(
        Error::new(Kind::Data, "a link leads out of the parent's directory")
            .file(path)
            .expected("a file of its own", found)
            .with_hint("copy the files into one directory, or leave out --no-follow"),
    )
}

fn check_sums(file: &FileSource, container: Container) -> Result<()> {
    let refused = |found: String| {
        Error::new(Kind::Data, "bytes that no checksum covers")
            .file(file.path())
            .expected("a CRC-32 of every record", found)
            .with_hint("save it again with torch.save, or leave out --require-checksums")
    };
    match container {
        Container::Zip => {}
        Container::Legacy => {
            return Err(refused("the format of torch before 1.6, which has none".to_owned()));
        }
        Container::Safetensors => return Err(refused("safetensors, which have none".to_owned())),
    }
    let records = archive_records(file).map_err(|error| Error::from_format(file.path(), error))?;
    match records.iter().find(|record| record.crc32.is_none()) {
        None => Ok(()),
        Some(record) => Err(refused(format!("none of `{}`", escape(&record.name)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_inside_stay_and_links_out_are_named() {
        let place = tempfile::tempdir().expect("a directory");
        let model = place.path().join("model");
        std::fs::create_dir(&model).expect("made");
        std::fs::create_dir(place.path().join("elsewhere")).expect("made");
        for name in ["outside", "model/inside"] {
            std::fs::write(place.path().join(name), b"x").expect("written");
        }
        for (target, name) in [
            ("inside", "a"),
            ("../model/inside", "b"),
            ("../outside", "c"),
            ("../elsewhere", "d"),
            ("absent", "e"),
            ("a", "f"),
            ("c", "g"),
        ] {
            symlink(target, model.join(name)).expect("a link");
        }
        let named: Vec<PathBuf> = links_out(&model)
            .expect("listed")
            .iter()
            .filter_map(|error| error.path().map(Path::to_path_buf))
            .collect();
        assert_eq!(named, [model.join("c"), model.join("g")]);
        // The model itself may be named by a link.
        symlink("model", place.path().join("linked")).expect("a link");
        assert_eq!(links_out(&place.path().join("linked")).expect("listed").len(), 2);
        assert_eq!(links_out(&model.join("c")).expect("looked at").len(), 1);
        assert_eq!(links_out(&model.join("b")).expect("looked at").len(), 0);
    }
}

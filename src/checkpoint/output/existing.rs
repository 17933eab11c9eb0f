//! Tells what is at an output already: nothing, a complete child of this tool, or something else.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;

use crate::checkpoint::files::small_file::read_bounded;
use crate::error::{Error, Kind, Result};
use crate::tensor::counted;

/// Name of a child's provenance: what made it, and from what.
pub const PROVENANCE_FILE: &str = "slerp_merge.json";

/// Largest provenance file that is read.
const LIMIT_BYTES: u64 = 512 << 20;

/// What is at an output.
#[derive(Clone, Debug, PartialEq)]
pub enum Existing {
    /// Nothing, or an empty directory.
    Nothing,
    /// A child with all its weight files.
    Child {
        /// Its provenance.
        provenance: Value,
        /// When the provenance was written, in nanoseconds since 1970.
        modified_ns: i128,
    },
    /// Something else: why it is not a child, in a few words.
    Other(String),
}

/// Looks for a child at `output`: weight files of these names and sizes in bytes, no others, and
/// its provenance.
///
/// # Errors
/// [`Kind::Output`] where the directory can't be read.
pub fn existing_child(output: &Path, files: &[(String, u64)]) -> Result<Existing> {
    let failed = |error| Error::from_io(Kind::Output, "cannot look at output", output, error);
    match std::fs::symlink_metadata(output) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Existing::Nothing),
        Err(error) => return Err(failed(error)),
        Ok(meta) if !meta.is_dir() => return Ok(Existing::Other("it is no directory".to_owned())),
        Ok(_) => {}
    }
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(output).map_err(failed)? {
        names.insert(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    if names.is_empty() {
        return Ok(Existing::Nothing);
    }
    let other = |words: String| Ok(Existing::Other(words));
    for (name, size_bytes) in files {
        match std::fs::metadata(output.join(name)) {
            Ok(meta) if meta.is_file() && meta.len() == *size_bytes => {}
            Ok(meta) => return other(format!("its {name} has {}", counted(meta.len(), "byte"))),
            Err(_) => return other(format!("it has no {name}")),
        }
    }
    let weights = |name: &&String| {
        name.ends_with(".bin") || name.ends_with(".safetensors") || name.ends_with(".index.json")
    };
    let expected = |name: &String| files.iter().any(|file| file.0 == *name);
    if let Some(name) = names.iter().filter(weights).find(|name| !expected(name)) {
        return other(format!("it holds another weight file, `{name}`"));
    }
    let path = output.join(PROVENANCE_FILE);
    let Ok(meta) = std::fs::metadata(&path) else {
        return other(format!("it has no {PROVENANCE_FILE}"));
    };
    let Ok(value) = serde_json::from_slice(&read_bounded(&path, LIMIT_BYTES)?) else {
        return other(format!("its {PROVENANCE_FILE} is no JSON"));
    };
    let modified_ns = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    Ok(Existing::Child { provenance: value, modified_ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_counts_only_with_all_its_weight_files_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let files = [("pytorch_model.bin".to_owned(), 3)];
        let look = || existing_child(dir.path(), &files).unwrap();
        assert_eq!(look(), Existing::Nothing);
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("pytorch_model.bin", "xx");
        assert_eq!(look(), Existing::Other("its pytorch_model.bin has 2 bytes".to_owned()));
        write("pytorch_model.bin", "xxx");
        assert_eq!(look(), Existing::Other("it has no slerp_merge.json".to_owned()));
        write("slerp_merge.json", "{\"t\": 0.5}");
        assert!(matches!(look(), Existing::Child { .. }));
        write("model.safetensors", "");
        assert!(matches!(look(), Existing::Other(_)));
    }
}

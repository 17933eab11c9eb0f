//! Names the top folder inside the zip, which torch takes from the output path.
//!
//! Source: torch 2.11 `torch/serialization.py` (`_open_zipfile_writer_file`, which falls back to a
//! buffer for paths that are not ASCII) and `caffe2/serialize/inline_container.cc`
//! (`PyTorchStreamWriter::setup`, `basename`).

use crate::format::emit_error::EmitError;

/// Folder name for the path of the finished file, as the user gave it (relative or absolute): its
/// last component without the last extension, or `archive` if the path has a non-ASCII character
/// anywhere.
///
/// The path must be the final one, also while the file is written under a temporary name: the
/// folder's length moves every record.
///
/// # Errors
/// [`EmitError::EmptyFolder`] where nothing is left (`.bin`, `dir/`); torch refuses these too.
pub fn top_folder(final_path: &str) -> Result<&str, EmitError> {
    if !final_path.is_ascii() {
        return Ok("archive");
    }
    // The backslash counts on every system.
    let base = final_path.rsplit(['/', '\\']).next().unwrap_or(final_path);
    let folder = base.rsplit_once('.').map_or(base, |(stem, _)| stem);
    if folder.is_empty() {
        return Err(EmitError::EmptyFolder { path: final_path.to_owned() });
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_the_stem_of_the_last_component() {
        for (path, folder) in [
            ("out/pytorch_model-00001-of-00002.bin", "pytorch_model-00001-of-00002"),
            ("a.b.bin", "a.b"),
            ("weights", "weights"),
            ("..bin", "."),
            ("a.", "a"),
            ("dir\\name.bin", "name"),
            ("../x.y/weights", "weights"),
        ] {
            assert_eq!(top_folder(path), Ok(folder), "{path}");
        }
    }

    #[test]
    fn a_non_ascii_path_gives_archive_whichever_part_it_is_in() {
        assert_eq!(top_folder("modèle.bin"), Ok("archive"));
        assert_eq!(top_folder("dïr/pytorch_model.bin"), Ok("archive"));
    }

    #[test]
    fn a_path_without_a_stem_is_refused() {
        for path in [".bin", "dir/", "dir/.bin", ""] {
            assert_eq!(top_folder(path), Err(EmitError::EmptyFolder { path: path.into() }));
        }
    }
}

//! Lists the files that make up a tokenizer, each with the function that finds token ids in it.

use std::path::Path;

use crate::checkpoint::files::small_file::is_present;
use crate::checkpoint::side_files::token_ids::{self, MaxId};
use crate::error::{Error, Kind, Result};
use crate::tensor::escape;

/// Finds the highest id in a file.
pub(super) type ReadIds = fn(&[u8]) -> MaxId;

pub(super) const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";

/// Folder of named chat templates, one file each (transformers 4.57.3, `CHAT_TEMPLATE_DIR`).
pub(super) const TEMPLATES: &str = "additional_chat_templates";

/// Most files that a tokenizer has besides those of [`FILES`].
const MOST_FILES: usize = 1000;

/// The files of tokenizers by name: `vocab_files_names` of every tokenizer of transformers 4.57.3
/// and the names that its base class and mistral-common write. TransfoXL's `vocab.pkl` and
/// `vocab.bin` are pickles and not among them.
///
/// Ids are read from files whose ids are rows of the embedding: those of Marian and FSMT have ids
/// of their own, and an entity is no token.
pub(super) const FILES: &[(&str, Option<ReadIds>)] = &[
    ("tokenizer.json", Some(token_ids::of_tokenizer_json)),
    ("tokenizer.model", Some(token_ids::of_sentencepiece)),
    ("tokenizer_config.json", Some(token_ids::of_tokenizer_config)),
    (SPECIAL_TOKENS_MAP, None),
    ("added_tokens.json", Some(token_ids::of_vocabulary_json)),
    ("vocab.json", Some(token_ids::of_vocabulary_json)),
    ("vocab.txt", Some(token_ids::of_lines)),
    ("merges.txt", None),
    ("spiece.model", Some(token_ids::of_sentencepiece)),
    ("sentencepiece.bpe.model", Some(token_ids::of_sentencepiece)),
    ("sentencepiece.model", Some(token_ids::of_sentencepiece)),
    ("spm.model", Some(token_ids::of_sentencepiece)),
    ("spm_char.model", Some(token_ids::of_sentencepiece)),
    ("source.spm", None),
    ("target.spm", None),
    ("target_vocab.json", None),
    ("vocab-src.json", None),
    ("vocab-tgt.json", None),
    ("bpe.codes", None),
    ("dict.txt", None),
    ("byte_maps.json", None),
    ("emoji.json", None),
    ("entity_vocab.json", None),
    ("normalizer.json", None),
    ("word_pronunciation.json", None),
    ("word_shape.json", None),
    ("prophetnet.tokenizer", None),
    ("artists.json", None),
    ("genres.json", None),
    ("lyrics.json", None),
    ("tekken.json", None),
    ("chat_template.jinja", None),
    ("chat_template.json", None),
    ("vocab.bpe", None),
    ("encoder.json", None),
];

/// Prefixes and suffixes of further names of tokenizer files: `qwen.tiktoken`, `tokenizer_v2.json`,
/// `ice_text.model`.
const STARTS: [&str; 6] =
    ["tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "chat_template"];
const ENDS: [&str; 7] = [".tiktoken", ".spm", ".model", ".vocab", ".bpe", ".tokenizer", ".jinja"];

/// Whether a file of this name is a tokenizer's.
pub(super) fn is_tokenizer_file(name: &str) -> bool {
    FILES.iter().any(|file| file.0 == name)
        || STARTS.iter().any(|start| name.starts_with(start))
        || ENDS.iter().any(|end| name.ends_with(end))
}

/// The function that reads ids from a file of this name, if it has any. `directory` may hold files
/// that decide what its ids are.
pub(super) fn reader(directory: &Path, name: &str) -> Option<ReadIds> {
    // BARTpho, M2M100 and Speech2Text take their ids from another file; this one has more pieces.
    let elsewhere = || ["dict.txt", "vocab.json"].iter().any(|file| directory.join(file).exists());
    match FILES.iter().find(|file| file.0 == name) {
        Some(("sentencepiece.bpe.model", _)) if elsewhere() => None,
        Some((_, reader)) => *reader,
        None if name.ends_with(".tiktoken") => Some(token_ids::of_sentencepiece),
        None => None,
    }
}

/// Tokenizer files in `directory` that are not in [`FILES`]: those with similar names, and chat
/// templates by their paths. Sorted.
///
/// # Errors
/// [`Kind::NoInput`] where it can't be listed, or a link leads to nothing; [`Kind::Data`] for more
/// files than any tokenizer has.
pub(super) fn further_files(
    directory: &Path,
    is_like: &dyn Fn(&str) -> bool,
) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let listed = |name: &str| FILES.iter().any(|file| file.0 == name);
    take(directory, "", &mut names, &|name| is_like(name) && !listed(name))?;
    let templates = directory.join(TEMPLATES);
    if std::fs::symlink_metadata(&templates).is_ok_and(|meta| meta.is_dir()) {
        let is_template = |name: &str| !name.starts_with('.') && name.ends_with(".jinja");
        take(&templates, &format!("{TEMPLATES}/"), &mut names, &is_template)?;
    }
    names.sort();
    Ok(names)
}

fn take(
    directory: &Path,
    prefix: &str,
    names: &mut Vec<String>,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<()> {
    let failed = |error| Error::from_io(Kind::NoInput, "cannot list directory", directory, error);
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str().filter(|name| wanted(name)) else { continue };
        // Folders are passed over, and names with control characters.
        let path = directory.join(name);
        if path.is_dir() || name.contains(char::is_control) || !is_present(&path)? {
            continue;
        }
        names.push(format!("{prefix}{name}"));
        if names.len() > MOST_FILES {
            return Err(Error::new(Kind::Data, "more tokenizer files than any tokenizer has")
                .file(directory)
                .expected(format!("at most {MOST_FILES}"), format!("`{}` too", escape(name)))
                .with_hint("move what is no tokenizer file out of that directory"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scripts/fixtures/wild/small_files.py` asked every tokenizer of transformers for them.
    #[test]
    fn every_name_that_transformers_has_is_known() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/data/wild/small_files/vocab_files_names.json");
        let names: Vec<String> =
            serde_json::from_slice(&std::fs::read(path).expect("read")).expect("a list");
        assert!(names.len() > 20);
        for name in names.iter().filter(|name| !["vocab.pkl", "vocab.bin"].contains(&name.as_str()))
        {
            assert!(FILES.iter().any(|file| file.0 == name), "{name}");
        }
    }

    #[test]
    fn like_names_and_templates_are_found_and_folders_are_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str| std::fs::write(dir.path().join(name), b"x").expect("written");
        for name in ["tokenizer", TEMPLATES] {
            std::fs::create_dir(dir.path().join(name)).expect("made");
        }
        let names = [
            "qwen.tiktoken",
            "vocab.json",
            "tokenizer_v2.json",
            "notes.txt",
            "tokenizer/vocab.txt",
            "additional_chat_templates/rag.jinja",
            "additional_chat_templates/readme.md",
        ];
        names.into_iter().for_each(write);
        let found = further_files(dir.path(), &is_tokenizer_file).expect("listed");
        assert_eq!(
            found,
            ["additional_chat_templates/rag.jinja", "qwen.tiktoken", "tokenizer_v2.json"]
        );
    }
}

//! Reads a directory's tokenizer, its files and the highest id in them, and chooses between the
//! parents' tokenizers.

use std::path::Path;

use crate::checkpoint::files::small_file::{is_present, read_bounded};
use crate::checkpoint::parent_side::Side;
use crate::checkpoint::side_files::role::{Role, role};
use crate::checkpoint::side_files::tokenizer_files::{
    FILES, SPECIAL_TOKENS_MAP, further_files, reader,
};
use crate::error::{Error, Kind, Result};
use crate::tensor::counted;
use serde::{Deserialize, Serialize};

/// The largest tokenizer file that is read, in bytes.
pub(crate) const MAX_TOKENIZER_BYTES: u64 = 512 << 20;

/// The highest token id of a directory and the file that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HighestId {
    /// The id, from 0.
    pub id: u64,
    /// The file.
    pub file: String,
}

/// The tokenizer files of a directory. The default is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizerFacts {
    /// Names of the files; those in folders as paths.
    pub files: Vec<String>,
    /// The highest id that they name.
    pub highest: Option<HighestId>,
}

impl TokenizerFacts {
    /// Looks at the tokenizer files of `directory` and reads the ids in them.
    ///
    /// # Errors
    /// [`Kind::Data`] for a file that is not what its name says, is no regular file, or is larger
    /// than 512 MiB; [`Kind::NoInput`] and [`Kind::Io`] where one can't be read.
    pub fn read(directory: &Path) -> Result<TokenizerFacts> {
        let (facts, errors) = TokenizerFacts::read_whole(directory);
        errors.into_iter().next().map_or(Ok(facts), Err)
    }

    /// Like [`TokenizerFacts::read`], but returns the facts of all good files and the errors of all
    /// others.
    pub fn read_whole(directory: &Path) -> (TokenizerFacts, Vec<Error>) {
        let (mut facts, mut errors) = (TokenizerFacts::default(), Vec::new());
        for file in FILES {
            errors.extend(facts.add(directory, file.0).err());
        }
        match further_files(directory, &is_like) {
            Ok(more) => {
                errors.extend(more.iter().filter_map(|file| facts.add(directory, file).err()));
            }
            Err(error) => errors.push(error),
        }
        (facts, errors)
    }

    fn add(&mut self, directory: &Path, file: &str) -> Result<()> {
        let path = directory.join(file);
        if !is_present(&path)? {
            return Ok(());
        }
        self.files.push(file.to_owned());
        let Some(read_ids) = reader(directory, file) else { return Ok(()) };
        let bytes = read_bounded(&path, MAX_TOKENIZER_BYTES)?;
        let max = read_ids(&bytes).map_err(|reason| unusable(&path, &bytes, reason))?;
        // Of several files that name it, the first is reported.
        match (max, &self.highest) {
            (Some(id), Some(highest)) if id <= highest.id => {}
            (Some(id), _) => self.highest = Some(HighestId { id, file: file.to_owned() }),
            (None, _) => {}
        }
        Ok(())
    }

    /// Whether there is a tokenizer at all.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    fn has_special_tokens_map(&self) -> bool {
        self.files.iter().any(|file| file == SPECIAL_TOKENS_MAP)
    }
}

fn is_like(name: &str) -> bool {
    role(name, true) == Role::Tokenizer
}

/// A tokenizer file that is not what its name says.
pub(crate) fn unusable(path: &Path, bytes: &[u8], reason: String) -> Error {
    let error = Error::new(Kind::Data, "tokenizer file is not usable").file(path);
    if bytes.starts_with(b"version https://git-lfs") {
        return error
            .expected("a tokenizer file", "a git-lfs pointer")
            .with_hint("run `git lfs pull` in that directory");
    }
    error.expected("token ids", reason)
}

/// Whose tokenizer the user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "torch", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum TokenizerMode {
    /// The one that names every row of the child.
    #[cfg_attr(feature = "torch", value(help = None::<&str>))]
    #[default]
    Auto,
    /// The primary's.
    #[cfg_attr(feature = "torch", value(help = None::<&str>))]
    Primary,
    /// The secondary's.
    #[cfg_attr(feature = "torch", value(help = None::<&str>))]
    Secondary,
}

/// Whose tokenizer files are copied, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenizerChoice {
    /// The parent; `None` where neither has any.
    pub side: Option<Side>,
    /// The reason, in words for the log.
    pub reason: String,
}

/// Chooses by `mode`. `auto` takes the parent with the longer vocabulary (rows of its input
/// embedding), since only its tokenizer names every row of the child; at equal length, the only one
/// with a special_tokens_map.json; else the primary. A parent without tokenizer files is passed
/// over.
pub(crate) fn choose(
    primary: &TokenizerFacts,
    secondary: &TokenizerFacts,
    rows_primary: u64,
    rows_secondary: u64,
    mode: TokenizerMode,
) -> TokenizerChoice {
    let choice = |side, reason: &str| TokenizerChoice { side, reason: reason.to_owned() };
    match mode {
        TokenizerMode::Primary => return asked_for(Side::Primary, primary),
        TokenizerMode::Secondary => return asked_for(Side::Secondary, secondary),
        TokenizerMode::Auto => {}
    }
    match (primary.is_empty(), secondary.is_empty()) {
        (true, true) => return choice(None, "neither parent has tokenizer files"),
        (false, true) => {
            return choice(Some(Side::Primary), "only the primary has tokenizer files");
        }
        (true, false) => {
            return choice(Some(Side::Secondary), "only the secondary has tokenizer files");
        }
        (false, false) => {}
    }
    let longer = |name: &str, more: u64, less: u64| {
        format!("the {name}'s vocabulary is longer, {} to {less}", counted(more, "row"))
    };
    match rows_primary.cmp(&rows_secondary) {
        std::cmp::Ordering::Greater => {
            choice(Some(Side::Primary), &longer("primary", rows_primary, rows_secondary))
        }
        std::cmp::Ordering::Less => {
            choice(Some(Side::Secondary), &longer("secondary", rows_secondary, rows_primary))
        }
        std::cmp::Ordering::Equal => {
            match (primary.has_special_tokens_map(), secondary.has_special_tokens_map()) {
                (false, true) => choice(
                    Some(Side::Secondary),
                    "vocabularies are equally long and only the secondary has a special_tokens_map.json",
                ),
                (true, false) => choice(
                    Some(Side::Primary),
                    "vocabularies are equally long and only the primary has a special_tokens_map.json",
                ),
                (true, true) | (false, false) => {
                    choice(Some(Side::Primary), "vocabularies are equally long, so the primary's")
                }
            }
        }
    }
}

fn asked_for(side: Side, facts: &TokenizerFacts) -> TokenizerChoice {
    let reason = if facts.is_empty() { "as asked, though it has no files" } else { "as asked" };
    TokenizerChoice { side: Some(side), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, bytes) in files {
            fs::write(directory.path().join(name), bytes).expect("written");
        }
        directory
    }

    #[test]
    fn the_highest_id_is_found_with_the_file_that_names_it() {
        let directory = directory(&[
            ("vocab.json", br#"{"a": 0, "b": 1}"#),
            ("merges.txt", b"a b"),
            ("tokenizer_config.json", br#"{"added_tokens_decoder": {"2": {}}}"#),
            ("added_tokens.json", br#"{"<x>": 2}"#),
            ("pytorch_model.bin", b""),
        ]);
        let facts = TokenizerFacts::read(directory.path()).expect("a tokenizer");
        assert_eq!(
            facts,
            TokenizerFacts {
                files: ["tokenizer_config.json", "added_tokens.json", "vocab.json", "merges.txt"]
                    .map(str::to_owned)
                    .to_vec(),
                highest: Some(HighestId { id: 2, file: "tokenizer_config.json".to_owned() }),
            }
        );
    }

    #[test]
    fn a_directory_without_a_tokenizer_has_no_facts() {
        let directory = directory(&[("config.json", b"{}")]);
        let facts = TokenizerFacts::read(directory.path()).expect("no tokenizer");
        assert_eq!(facts, TokenizerFacts::default());
    }

    #[test]
    fn a_broken_file_is_refused_by_name() {
        let directory = directory(&[("vocab.json", b"{\"a\": ")]);
        let error = TokenizerFacts::read(directory.path()).expect_err("cut JSON");
        let path = directory.path().join("vocab.json");
        assert_eq!((error.kind(), error.path()), (Kind::Data, Some(path.as_path())));
    }

    #[test]
    fn a_git_lfs_pointer_is_named_and_comes_with_advice() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
        let directory = directory(&[("tokenizer.model", pointer)]);
        let error = TokenizerFacts::read(directory.path()).expect_err("a pointer");
        assert!(error.hint().is_some());
    }

    #[test]
    fn an_oversized_file_is_refused_before_it_is_read() {
        let directory = directory(&[("tokenizer.json", b"{}")]);
        let path = directory.path().join("tokenizer.json");
        let file = fs::OpenOptions::new().write(true).open(&path).expect("open");
        file.set_len(MAX_TOKENIZER_BYTES + 1).expect("a sparse file");
        let error = TokenizerFacts::read(directory.path()).expect_err("too large");
        assert_eq!(error.kind(), Kind::Data);
    }

    fn facts(files: &[&'static str]) -> TokenizerFacts {
        TokenizerFacts {
            files: files.iter().map(|file| (*file).to_owned()).collect(),
            highest: None,
        }
    }

    #[test]
    fn the_longer_vocabulary_wins_then_the_special_tokens_map_then_the_primary() {
        let (plain, special) = (facts(&["vocab.json"]), facts(&[SPECIAL_TOKENS_MAP]));
        let none = TokenizerFacts::default();
        let side = |primary, secondary, rows: (u64, u64)| {
            choose(primary, secondary, rows.0, rows.1, TokenizerMode::Auto).side
        };
        assert_eq!(side(&plain, &plain, (5, 4)), Some(Side::Primary));
        assert_eq!(side(&special, &plain, (4, 5)), Some(Side::Secondary));
        assert_eq!(side(&plain, &special, (5, 5)), Some(Side::Secondary));
        assert_eq!(side(&special, &special, (5, 5)), Some(Side::Primary));
        assert_eq!(side(&plain, &plain, (5, 5)), Some(Side::Primary));
        assert_eq!(side(&plain, &none, (4, 5)), Some(Side::Primary));
        assert_eq!(side(&none, &plain, (5, 4)), Some(Side::Secondary));
        assert_eq!(side(&none, &none, (5, 4)), None);
    }

    #[test]
    fn the_parent_that_was_asked_for_is_taken() {
        let plain = facts(&["vocab.json"]);
        let side = |mode| choose(&plain, &plain, 5, 4, mode).side;
        assert_eq!(side(TokenizerMode::Secondary), Some(Side::Secondary));
        assert_eq!(side(TokenizerMode::Primary), Some(Side::Primary));
    }
}

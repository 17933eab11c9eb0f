//! Decides which files a child gets beside its weights, and writes them: config.json with the
//! child's values, copies of a tokenizer and of the primary's other small files.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::checkpoint::files::small_file::{
    check_readable, is_lfs_pointer, is_present, read_bounded,
};
use crate::checkpoint::output::staging::Staging;
use crate::checkpoint::parent::checkpoint::Checkpoint;
use crate::checkpoint::parent::strictness::link_out;
use crate::checkpoint::parent_side::Side;
use crate::checkpoint::side_files::config::NewRows;
use crate::checkpoint::side_files::modules::module_folders;
use crate::checkpoint::side_files::selection::{SMALL_BYTES, Selection, SideFile, Wanted};
use crate::checkpoint::side_files::tokenizer::{
    MAX_TOKENIZER_BYTES, TokenizerChoice, TokenizerFacts, TokenizerMode, choose,
};
use crate::checkpoint::side_files::words::union;
use crate::checkpoint::weights::names::WeightName;
use crate::error::{Error, Kind, Result};
use crate::tensor::{DType, human_bytes};

/// Largest file that is copied: a tokenizer file, a known setting, the weights of a module.
const LIMIT_BYTES: u64 = MAX_TOKENIZER_BYTES;

/// Settings that a model needs: they are copied, or the merge is refused.
const KNOWN: [&str; 6] = [
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "audio_tokenizer_config.json",
    "modules.json",
];

/// The side files of a child, decided before any work.
#[derive(Debug, Default)]
pub struct SideFiles {
    /// Files with new content: name and bytes.
    made: Vec<(String, Vec<u8>)>,
    /// Files copied from a parent.
    copied: Vec<SideFile>,
    /// Whose tokenizer was taken, and why.
    pub tokenizer_reason: Option<String>,
    /// What is not copied from the primary's directory, in one line.
    pub left_behind: Option<String>,
}

/// Rows of both vocabularies and of the child's.
#[derive(Clone, Copy, Debug)]
pub struct ChildRows {
    /// The primary's.
    pub primary: u64,
    /// The secondary's.
    pub secondary: u64,
    /// The child's.
    pub child: u64,
}

/// The words of a child whose rows are merged by word: the primary's, and new ones.
#[derive(Clone, Copy, Debug)]
pub struct WordsOfChild<'a> {
    /// Rows and words that the primary's tokenizer lacks.
    pub new_words: &'a [(u64, String)],
}

/// What the side files depend on.
#[derive(Clone, Copy, Debug)]
pub struct SideFileOptions<'a> {
    /// Rows of the vocabularies, where the models have any.
    pub rows: Option<ChildRows>,
    /// The parent that has the other's words in their rows, and more.
    pub extends: Option<Side>,
    /// The words of the child, where its rows are merged by word.
    pub by_word: Option<WordsOfChild<'a>>,
    /// dtype to set in config.json, where `--dtype` changes it.
    pub dtype: Option<DType>,
    /// Whose tokenizer the user asks for.
    pub tokenizer: TokenizerMode,
    /// Copy the primary's `*.py` files.
    pub copy_code: bool,
    /// Refuse files in folders that are links out of the parent's directory.
    pub no_follow: bool,
}

impl SideFiles {
    /// Decides which files the child gets, and checks that its tokenizer names no row that the
    /// child lacks.
    ///
    /// # Errors
    /// [`Kind::Data`] for a tokenizer with an id at or above the child's rows, for files that are
    /// not what their names say, and for modules whose weights would have to be merged.
    pub fn gather(
        primary: &Checkpoint,
        secondary: &Checkpoint,
        options: SideFileOptions<'_>,
    ) -> Result<SideFiles> {
        let mut files = SideFiles::default();
        files.add_config(primary, options)?;
        let tokenizer = files.add_tokenizer(primary, secondary, options)?;
        if let Some(dir) = &primary.dir {
            for name in KNOWN {
                files.add_copy(dir, name)?;
            }
            let own = tokenizer != Some(Side::Secondary);
            files.add_others(dir, primary, secondary, (own, options.copy_code))?;
        }
        if options.no_follow {
            let parents = [primary, secondary].into_iter().filter_map(|one| one.dir.as_deref());
            parents.into_iter().try_for_each(|dir| files.check_links(dir))?;
        }
        Ok(files)
    }

    /// Adds the primary's other small files and the folders of its modules.
    fn add_others(
        &mut self,
        dir: &Path,
        primary: &Checkpoint,
        secondary: &Checkpoint,
        (tokenizer, code): (bool, bool),
    ) -> Result<()> {
        let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let mut taken: HashSet<String> =
            primary.files.iter().filter_map(|file| name(file.path())).collect();
        let shards = taken.iter().filter_map(|name| WeightName::parse(name));
        let indexes: HashSet<String> = shards.map(WeightName::index).collect();
        if primary.files.len() > 1 {
            taken.extend(indexes);
        }
        let modules = module_folders(dir)?;
        let wanted = Wanted { taken: &taken, modules: &modules, code, tokenizer };
        let selection = Selection::of(dir, wanted)?;
        self.left_behind = selection.left_behind();
        for small in &selection.module_weights {
            check_module(small, secondary.dir.as_deref())?;
        }
        for small in selection.copied.into_iter().chain(selection.module_weights) {
            if self.copied.iter().all(|copied| copied.name != small.name) {
                check_copy(&small.path, small.bytes)?;
                self.copied.push(small);
            }
        }
        Ok(())
    }

    fn add_config(&mut self, primary: &Checkpoint, options: SideFileOptions<'_>) -> Result<()> {
        let Some(config) = &primary.config else { return Ok(()) };
        // A vocab_size below the rows (padded vocabularies) is corrected as well.
        let rows = options.rows.map(|rows| NewRows { old: rows.primary, new: rows.child });
        let rewritten = config.rewrite(rows, options.dtype)?;
        self.made.push(("config.json".to_owned(), rewritten.text.into_bytes()));
        Ok(())
    }

    fn add_tokenizer(
        &mut self,
        primary: &Checkpoint,
        secondary: &Checkpoint,
        options: SideFileOptions<'_>,
    ) -> Result<Option<Side>> {
        let facts = |checkpoint: &Checkpoint| match &checkpoint.dir {
            Some(dir) => TokenizerFacts::read(dir),
            None => Ok(TokenizerFacts::default()),
        };
        let (a, b) = (facts(primary)?, facts(secondary)?);
        let (rows_a, rows_b) = options.rows.map_or((0, 0), |rows| (rows.primary, rows.secondary));
        let choice = match options.by_word {
            Some(_) if options.tokenizer == TokenizerMode::Secondary => {
                return Err(not_the_secondarys());
            }
            Some(_) => TokenizerChoice {
                side: Some(Side::Primary),
                reason: "its words are the child's".to_owned(),
            },
            None if options.tokenizer == TokenizerMode::Auto
                && rows_a == rows_b
                && let Some(side) = options.extends =>
            {
                let reason = "it has the other's words and more".to_owned();
                TokenizerChoice { side: Some(side), reason }
            }
            None => choose(&a, &b, rows_a, rows_b, options.tokenizer),
        };
        let (checkpoint, facts) = match choice.side {
            Some(Side::Primary) => (primary, &a),
            Some(Side::Secondary) => (secondary, &b),
            None => {
                self.tokenizer_reason = Some(choice.reason);
                return Ok(None);
            }
        };
        let side = choice.side.map_or("", Side::name);
        self.tokenizer_reason = Some(format!("the {side}'s: {}", choice.reason));
        let Some(dir) = &checkpoint.dir else { return Ok(choice.side) };
        if let (Some(highest), Some(rows)) = (&facts.highest, options.rows) {
            let rows = rows.child;
            if highest.id >= rows {
                return Err(Error::new(
                    Kind::Data,
                    "the tokenizer names rows that the child lacks",
                )
                .file(&dir.join(&highest.file))
                .expected(format!("ids below {rows}"), format!("id {}", highest.id))
                .with_hint("give --tokenizer primary or secondary, or mend that tokenizer"));
            }
        }
        let mut left_out = Vec::new();
        if let (Some(words), Some(other)) = (options.by_word, &secondary.dir) {
            let (own, others) =
                ((dir.as_path(), &primary.vocabulary), (other.as_path(), &secondary.vocabulary));
            let union = union::files(own, others, words.new_words)?;
            if !union.made.is_empty() {
                self.tokenizer_reason = Some(union.reason);
                left_out = union.left_out;
                self.made.extend(union.made);
            }
        }
        let is_made = |name: &String| self.made.iter().any(|made| made.0 == *name);
        let copied: Vec<&String> =
            facts.files.iter().filter(|name| !is_made(name) && !left_out.contains(name)).collect();
        for name in copied {
            self.add_copy(dir, name)?;
        }
        Ok(choice.side)
    }

    fn add_copy(&mut self, dir: &Path, name: &str) -> Result<()> {
        let path = dir.join(name);
        if is_present(&path)? {
            let bytes = std::fs::metadata(&path).map_or(0, |meta| meta.len());
            check_copy(&path, bytes)?;
            self.copied.push(SideFile { name: name.to_owned(), path, bytes });
        }
        Ok(())
    }

    /// Checks the files in folders too, which opening the parent did not look at.
    fn check_links(&self, dir: &Path) -> Result<()> {
        let failed = |error| Error::from_io(Kind::NoInput, "cannot look for links", dir, error);
        let home = dir.canonicalize().map_err(failed)?;
        let own = self.copied.iter().filter(|small| small.path.starts_with(dir));
        own.filter_map(|small| link_out(&small.path, &home)).next().map_or(Ok(()), Err)
    }

    /// Number of files and of folders that hold them.
    pub fn count(&self) -> u64 {
        let mut folders: Vec<&Path> = self
            .copied
            .iter()
            .flat_map(|small| Path::new(&small.name).ancestors().skip(1))
            .filter(|folder| !folder.as_os_str().is_empty())
            .collect();
        folders.sort_unstable();
        folders.dedup();
        (self.made.len() + self.copied.len() + folders.len()) as u64
    }

    /// Paths in the child, sorted.
    pub fn names(&self) -> Vec<&str> {
        let made = self.made.iter().map(|file| file.0.as_str());
        let mut names: Vec<&str> =
            made.chain(self.copied.iter().map(|small| small.name.as_str())).collect();
        names.sort_unstable();
        names
    }

    /// Total length of the files in bytes.
    pub fn total_bytes(&self) -> u64 {
        let made = self.made.iter().map(|file| file.1.len() as u64);
        made.chain(self.copied.iter().map(|small| small.bytes)).fold(0, u64::saturating_add)
    }

    /// The first file that is missing from a child's directory or differs there.
    ///
    /// # Errors
    /// As `gather` where a parent's file went away meanwhile.
    pub fn difference(&self, dir: &Path) -> Result<Option<String>> {
        let same = |name: &str, bytes: &[u8]| {
            let path = dir.join(name);
            is_present(&path).is_ok_and(|present| present)
                && read_bounded(&path, LIMIT_BYTES).is_ok_and(|found| found == bytes)
        };
        for (name, bytes) in &self.made {
            if !same(name, bytes) {
                return Ok(Some(name.clone()));
            }
        }
        for SideFile { name, path, .. } in &self.copied {
            if !same(name, &read_bounded(path, LIMIT_BYTES)?) {
                return Ok(Some(name.clone()));
            }
        }
        Ok(None)
    }

    /// Writes all of them to a child's work directory. Only contents are copied: no links, modes or
    /// attributes.
    ///
    /// # Errors
    /// [`Kind::Io`] with the path; as `gather` where a file became unusable meanwhile.
    pub fn write(&self, staging: &Staging) -> Result<()> {
        for (name, bytes) in &self.made {
            staging.write_file(name, bytes)?;
        }
        for SideFile { name, path, bytes } in &self.copied {
            // A file that was small when it was selected must not have grown large.
            let limit = if *bytes > SMALL_BYTES { LIMIT_BYTES } else { (*bytes).max(SMALL_BYTES) };
            staging.write_file(name, &read_bounded(path, limit)?)?;
        }
        Ok(())
    }
}

fn not_the_secondarys() -> Error {
    Error::new(Kind::Usage, "the secondary's tokenizer names other rows than the child has")
        .with_hint("leave --tokenizer out: --vocab union and --vocab primary give the child's own")
}

/// Refuses a file that must be copied and can't be.
fn check_copy(path: &Path, bytes: u64) -> Result<()> {
    if bytes > LIMIT_BYTES {
        return Err(Error::new(Kind::Data, "file too large")
            .file(path)
            .expected(format!("at most {}", human_bytes(LIMIT_BYTES)), human_bytes(bytes)));
    }
    check_readable(path)?;
    if is_lfs_pointer(path, bytes) {
        return Err(Error::new(Kind::Data, "a file beside the weights was not downloaded")
            .file(path)
            .expected("its content", "a git-lfs pointer")
            .with_hint("run `git lfs pull` in that directory"));
    }
    Ok(())
}

/// Refuses a module's weights, which are not merged, unless both parents have the same.
fn check_module(small: &SideFile, secondary: Option<&Path>) -> Result<()> {
    let other = secondary.map(|dir| dir.join(&small.name));
    let length = |path: &PathBuf| std::fs::metadata(path).ok().filter(|meta| meta.is_file());
    let found = match other.as_ref().and_then(|path| length(path).map(|meta| (path, meta.len()))) {
        None => "no such file in the secondary",
        Some((_, bytes)) if bytes != small.bytes => "others in the secondary",
        Some((path, _)) => {
            let same = read_bounded(&small.path, LIMIT_BYTES)? == read_bounded(path, LIMIT_BYTES)?;
            if same {
                return Ok(());
            }
            "others in the secondary"
        }
    };
    Err(Error::new(Kind::Data, "a module beside the model has weights that are not merged")
        .file(&small.path)
        .expected("the same bytes in both parents", found)
        .with_hint(
            "take the module's entry out of a copy of the primary's modules.json, and put the folder \
             that you want, or a merge of both, into the child afterwards",
        ))
}

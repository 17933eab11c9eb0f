//! What stands beside the child's weights: config.json, generation config, tokenizer files, code.

use std::path::{Path, PathBuf};

use crate::checkpoint::config::NewRows;
use crate::checkpoint::model::Checkpoint;
use crate::checkpoint::side::Side;
use crate::checkpoint::side_file::{is_present, read_bounded};
use crate::checkpoint::staging::Staging;
use crate::checkpoint::tokenizer::{TokenizerFacts, TokenizerMode, choose};
use crate::error::{Error, Kind, Result};
use crate::tensor::DType;

/// Largest file that is copied along.
const LIMIT_BYTES: u64 = 512 << 20;

/// Files of a child other than weights, decided before any work.
#[derive(Debug, Default)]
pub struct SideFiles {
    /// Files whose content is made here: name and bytes.
    made: Vec<(String, Vec<u8>)>,
    /// Files copied from a parent: name, path, length in bytes.
    copied: Vec<(String, PathBuf, u64)>,
    /// Whose tokenizer was taken and why.
    pub tokenizer_reason: Option<String>,
}

/// What decides the files beside the weights.
#[derive(Clone, Copy, Debug)]
pub struct SideFileOptions {
    /// Rows of both vocabularies, primary first, where the models have any.
    pub rows: Option<(u64, u64)>,
    /// dtype to set in config.json, where `--dtype` changes it.
    pub dtype: Option<DType>,
    /// Whose tokenizer.
    pub tokenizer: TokenizerMode,
    /// Copy the primary's `*.py` files.
    pub copy_code: bool,
}

impl SideFiles {
    /// Decides which files the child gets, and checks that its tokenizer names no row that the
    /// child lacks.
    ///
    /// # Errors
    /// [`Kind::Data`] for a tokenizer with an id at or above the child's rows, and for files that
    /// are not what their names say.
    pub fn gather(
        primary: &Checkpoint,
        secondary: &Checkpoint,
        options: SideFileOptions,
    ) -> Result<SideFiles> {
        let mut files = SideFiles::default();
        files.add_config(primary, options)?;
        if let Some(dir) = &primary.dir {
            files.add_copy(dir, "generation_config.json")?;
            if options.copy_code {
                files.add_code(dir)?;
            }
        }
        files.add_tokenizer(primary, secondary, options)?;
        Ok(files)
    }

    fn add_config(&mut self, primary: &Checkpoint, options: SideFileOptions) -> Result<()> {
        let Some(config) = &primary.config else { return Ok(()) };
        // A config that says less than the rows (padded vocabularies) is set right as well.
        let rows = options.rows.map(|(a, b)| NewRows { old: a, new: a.max(b) });
        let rewritten = config.rewrite(rows, options.dtype)?;
        self.made.push(("config.json".to_owned(), rewritten.text.into_bytes()));
        Ok(())
    }

    fn add_tokenizer(
        &mut self,
        primary: &Checkpoint,
        secondary: &Checkpoint,
        options: SideFileOptions,
    ) -> Result<()> {
        let facts = |checkpoint: &Checkpoint| match &checkpoint.dir {
            Some(dir) => TokenizerFacts::read(dir),
            None => Ok(TokenizerFacts::default()),
        };
        let (a, b) = (facts(primary)?, facts(secondary)?);
        let (rows_a, rows_b) = options.rows.unwrap_or((0, 0));
        let choice = choose(&a, &b, rows_a, rows_b, options.tokenizer);
        let (checkpoint, facts) = match choice.side {
            Some(Side::Primary) => (primary, &a),
            Some(Side::Secondary) => (secondary, &b),
            None => {
                self.tokenizer_reason = Some(choice.reason);
                return Ok(());
            }
        };
        let side = choice.side.map_or("", Side::name);
        self.tokenizer_reason = Some(format!("the {side}'s: {}", choice.reason));
        let Some(dir) = &checkpoint.dir else { return Ok(()) };
        if let (Some(highest), Some((rows_a, rows_b))) = (&facts.highest, options.rows) {
            let rows = rows_a.max(rows_b);
            if highest.id >= rows {
                return Err(Error::new(
                    Kind::Data,
                    "the tokenizer names rows that the child lacks",
                )
                .file(&dir.join(highest.file))
                .expected(format!("ids below {rows}"), format!("id {}", highest.id))
                .with_hint("give --tokenizer primary or secondary, or mend that tokenizer"));
            }
        }
        for name in &facts.files {
            self.add_copy(dir, name)?;
        }
        Ok(())
    }

    fn add_copy(&mut self, dir: &Path, name: &str) -> Result<()> {
        let path = dir.join(name);
        if is_present(&path)? {
            let bytes = std::fs::metadata(&path).map_or(0, |meta| meta.len());
            self.copied.push((name.to_owned(), path, bytes));
        }
        Ok(())
    }

    fn add_code(&mut self, dir: &Path) -> Result<()> {
        let entries = std::fs::read_dir(dir)
            .map_err(|error| Error::from_io(Kind::NoInput, "cannot list directory", dir, error))?;
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.ends_with(".py"))
            .collect();
        names.sort();
        names.iter().try_for_each(|name| self.add_copy(dir, name))
    }

    /// Number of files.
    pub fn count(&self) -> u64 {
        (self.made.len() + self.copied.len()) as u64
    }

    /// Bytes that the files will take.
    pub fn total_bytes(&self) -> u64 {
        let made = self.made.iter().map(|file| file.1.len() as u64);
        made.chain(self.copied.iter().map(|file| file.2)).fold(0, u64::saturating_add)
    }

    /// The first file that a child's directory lacks or holds with another content.
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
        for (name, path, _) in &self.copied {
            if !same(name, &read_bounded(path, LIMIT_BYTES)?) {
                return Ok(Some(name.clone()));
            }
        }
        Ok(None)
    }

    /// Writes all of them into a child in the making. Only contents are copied: no links, modes or
    /// attributes.
    ///
    /// # Errors
    /// [`Kind::Io`] with the path; as `gather` where a file changed for the worse meanwhile.
    pub fn write(&self, staging: &Staging) -> Result<()> {
        for (name, bytes) in &self.made {
            staging.write_file(name, bytes)?;
        }
        for (name, path, _) in &self.copied {
            staging.write_file(name, &read_bounded(path, LIMIT_BYTES)?)?;
        }
        Ok(())
    }
}

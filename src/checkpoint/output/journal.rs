//! The journal of an unfinished child: which of its storages are complete, for `--resume`.
//!
//! One JSON object a line, `{"crc32": N, "entry": ...}`, where the CRC is that of the entry's text.
//! The first entry says what is merged and how; each further one describes a finished storage.
//! Lines are appended without flushing: `--resume` checks the data against them before using it,
//! and the first torn line ends the journal.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::checkpoint::files::small_file::read_bounded;
use crate::checkpoint::output::work_dir::write_failed;
use crate::error::{Error, Kind, Result};
use crate::tensor::crc32;

/// Name of the journal in the work directory. It is removed before the child appears.
pub(crate) const JOURNAL_FILE: &str = "journal.jsonl";

/// Name under which a journal is rewritten before it replaces the old one.
pub(crate) const NEW_JOURNAL_FILE: &str = "journal.jsonl.new";

/// Largest journal that is read, enough for millions of tensors.
const LIMIT_BYTES: u64 = 1 << 30;

/// A storage of the child that is completely written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// The child's storage index.
    pub storage: usize,
    /// Position of its data in its weight file, in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub size_bytes: u64,
    /// CRC-32 of the data.
    pub crc32: u32,
    /// First bytes of the data, zeros where it is shorter.
    pub first_bytes: [u8; 8],
    /// What the engine adds: opaque here.
    pub found: Value,
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    crc32: u32,
    entry: Box<RawValue>,
}

/// The journal of an interrupted run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Interrupted {
    /// The first line: what was merged and how.
    pub(crate) header: Value,
    /// Finished storages, in the order of their writing.
    pub(crate) entries: Vec<JournalEntry>,
}

/// An open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: Mutex<File>,
}

impl Journal {
    /// Starts a new journal in the work directory `dir`, with the storages that are kept.
    ///
    /// # Errors
    /// [`Kind::Io`] with the path.
    pub(crate) fn start(dir: &Path, header: &Value, kept: &[JournalEntry]) -> Result<Journal> {
        let (path, new) = (dir.join(JOURNAL_FILE), dir.join(NEW_JOURNAL_FILE));
        let failed = |error| write_failed("cannot write the journal", &new, error);
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mut file =
            OpenOptions::new().append(true).create_new(true).open(&new).map_err(failed)?;
        let mut text = line(header)?;
        for entry in kept {
            text.push_str(&line(entry)?);
        }
        file.write_all(text.as_bytes()).map_err(failed)?;
        std::fs::rename(&new, &path).map_err(failed)?;
        Ok(Journal { path, file: Mutex::new(file) })
    }

    /// Appends a finished storage, in one write.
    ///
    /// # Errors
    /// [`Kind::Io`] with the path.
    pub(crate) fn append(&self, entry: &JournalEntry) -> Result<()> {
        let text = line(entry)?;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(text.as_bytes())
            .map_err(|error| write_failed("cannot write the journal", &self.path, error))
    }
}

/// Reads the journal in `dir`; `None` where there is none or its first line is broken.
///
/// # Errors
/// [`Kind::Io`] where reading fails.
pub(crate) fn read_journal(dir: &Path) -> Result<Option<Interrupted>> {
    let path = dir.join(JOURNAL_FILE);
    match std::fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_file() => {}
        _ => return Ok(None),
    }
    let bytes = read_bounded(&path, LIMIT_BYTES)?;
    // A torn line, or one without its line break, ends the journal.
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let mut lines = bytes[..whole].split(|byte| *byte == b'\n').map_while(entry_of);
    let Some(header) = lines.next().and_then(|text| serde_json::from_str(text.get()).ok()) else {
        return Ok(None);
    };
    let entries = lines.map_while(|text| serde_json::from_str(text.get()).ok()).collect();
    Ok(Some(Interrupted { header, entries }))
}

fn entry_of(line: &[u8]) -> Option<Box<RawValue>> {
    let line: Line = serde_json::from_slice(line).ok()?;
    (line.crc32 == crc32(line.entry.get().as_bytes())).then_some(line.entry)
}

fn line(entry: &impl Serialize) -> Result<String> {
    let made = serde_json::value::to_raw_value(entry).and_then(|entry| {
        serde_json::to_string(&Line { crc32: crc32(entry.get().as_bytes()), entry })
    });
    match made {
        Ok(text) => Ok(text + "\n"),
        Err(error) => Err(Error::new(Kind::Internal, "cannot make a line of the journal")
            .expected("", error.to_string())),
    }
}

/// The first difference between two headers: its path, and both values.
pub(crate) fn difference(old: &Value, new: &Value) -> Option<(String, String, String)> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let keys = new.keys().chain(old.keys().filter(|key| !new.contains_key(*key)));
            keys.into_iter().find_map(|key| {
                let value = |map: &serde_json::Map<String, Value>| {
                    map.get(key).cloned().unwrap_or(Value::Null)
                };
                difference(&value(old), &value(new)).map(|(path, a, b)| (joined(key, &path), a, b))
            })
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            old.iter().zip(new).enumerate().find_map(|(place, (old, new))| {
                let name = new.get("name").and_then(Value::as_str);
                let name = name.map_or_else(|| place.to_string(), str::to_owned);
                difference(old, new).map(|(path, a, b)| (joined(&name, &path), a, b))
            })
        }
        _ if old == new => None,
        _ => Some((String::new(), short(old), short(new))),
    }
}

fn joined(key: &str, rest: &str) -> String {
    if rest.is_empty() { key.to_owned() } else { format!("{key}: {rest}") }
}

fn short(value: &Value) -> String {
    match value {
        Value::Array(list) if list.len() > 4 => format!("{} entries", list.len()),
        Value::Null => "nothing".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(storage: usize) -> JournalEntry {
        JournalEntry {
            storage,
            offset: 64,
            size_bytes: 8,
            crc32: 7,
            first_bytes: [1; 8],
            found: json!({"differs": false}),
        }
    }

    fn text(dir: &Path) -> Vec<u8> {
        std::fs::read(dir.join(JOURNAL_FILE)).unwrap()
    }

    #[test]
    fn what_was_noted_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_journal(dir.path()).unwrap(), None);
        let journal = Journal::start(dir.path(), &json!({"t": 0.1}), &[entry(3)]).unwrap();
        journal.append(&entry(5)).unwrap();
        let found = read_journal(dir.path()).unwrap().unwrap();
        assert_eq!(found.header, json!({"t": 0.1}));
        assert_eq!(found.entries, [entry(3), entry(5)]);
    }

    #[test]
    fn a_journal_cut_anywhere_gives_whole_lines_only() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::start(dir.path(), &json!({"t": 0.1}), &[]).unwrap();
        (0..3).for_each(|storage| journal.append(&entry(storage)).unwrap());
        let whole = text(dir.path());
        for length in 0..whole.len() {
            std::fs::write(dir.path().join(JOURNAL_FILE), &whole[..length]).unwrap();
            let lines = whole[..length].iter().filter(|byte| **byte == b'\n').count();
            let found = read_journal(dir.path()).unwrap();
            assert_eq!(found.map_or(0, |found| found.entries.len() + 1), lines);
        }
    }

    #[test]
    fn a_damaged_line_ends_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::start(dir.path(), &json!({"t": 0.1}), &[]).unwrap();
        (0..3).for_each(|storage| journal.append(&entry(storage)).unwrap());
        let whole = String::from_utf8(text(dir.path())).unwrap();
        let damaged = whole.replace("\"storage\":1", "\"storage\":2");
        std::fs::write(dir.path().join(JOURNAL_FILE), damaged).unwrap();
        assert_eq!(read_journal(dir.path()).unwrap().unwrap().entries, [entry(0)]);
        std::fs::write(dir.path().join(JOURNAL_FILE), vec![0; 4096]).unwrap();
        assert_eq!(read_journal(dir.path()).unwrap(), None);
    }

    #[test]
    fn the_first_difference_is_named_by_its_path() {
        let old =
            json!({"options": {"t": [0.5], "method": "slerp"}, "files": [{"name": "a", "n": 1}]});
        assert_eq!(difference(&old, &old), None);
        let mut new = old.clone();
        new["options"]["method"] = json!("linear");
        let told = difference(&old, &new).unwrap();
        let words = ("options: method", "\"slerp\"", "\"linear\"");
        assert_eq!((told.0.as_str(), told.1.as_str(), told.2.as_str()), words);
        let mut new = old.clone();
        new["files"][0]["n"] = json!(2);
        assert_eq!(difference(&old, &new).unwrap().0, "files: a: n");
        new["files"] = json!([]);
        assert_eq!(difference(&old, &new).unwrap().0, "files");
    }
}

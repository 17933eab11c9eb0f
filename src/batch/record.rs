//! Writes the record of a batch: one JSON line per merge, flushed to disk before the next result is
//! taken.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::batch::outcome::JobResult;
use crate::error::{Error, Kind, Result};

/// An open record.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    file: File,
}

#[derive(Serialize)]
struct Line<'a> {
    /// Seconds since 1970.
    time: u64,
    #[serde(flatten)]
    result: &'a JobResult,
}

impl Record {
    /// Opens the record to append to it; a missing one is created.
    ///
    /// # Errors
    /// [`Kind::Output`] where it can't be opened.
    pub fn open(path: &Path) -> Result<Record> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|error| Error::from_io(Kind::Output, "cannot open record", path, error))?;
        Ok(Record { path: path.to_path_buf(), file })
    }

    /// Adds one result and flushes it to disk.
    ///
    /// # Errors
    /// [`Kind::Io`] with the path.
    pub fn add(&mut self, result: &JobResult) -> Result<()> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut line = serde_json::to_string(&Line { time, result }).map_err(|error| {
            Error::new(Kind::Internal, "cannot make JSON").expected("", error.to_string())
        })?;
        line.push('\n');
        // One write, so that lines of several tasks that share a record do not mix.
        self.file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(|error| Error::from_io(Kind::Io, "cannot write record", &self.path, error))
    }
}

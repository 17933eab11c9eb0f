//! Checks whether a parent is the one that a child was made from: by the CRCs that its files keep
//! of their storages, or, where a file keeps none, by the CRC of what the merge read of it.
//!
//! Bytes are read again only where the file may not be the one that the merge read: another device,
//! inode, size, time of modification or time of the inode's change. No program can set the last one
//! back, so a byte that was changed under an old time is seen.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;

use crate::checkpoint::{Checkpoint, FileSource, Identity};
use crate::engine::contents::bare_storages;
use crate::engine::read::source::read_storage;
use crate::error::Result;
use crate::tensor::crc32;

/// A file that was changed no longer than this before its child appeared may have been changed
/// again within the same tick of its file system's clock. The coarsest ticks are two seconds.
const TICK_NS: i128 = 2_000_000_000;

/// What slerp_merge.json keeps of a parent's file without CRCs.
#[derive(Serialize)]
pub(crate) struct Content {
    /// CRC-32 over the CRCs of its bare storages.
    crc32: String,
    device: u64,
    inode: u64,
    /// Beyond JSON's integers, and a date is no number to calculate with.
    modified_ns: String,
    changed_ns: String,
}

impl Content {
    /// Of each file of a parent; `None` where its CRCs tell it, or where not all of it was read.
    pub(crate) fn of(parent: &Checkpoint, sums: &[Option<u32>]) -> Vec<Option<Content>> {
        let content = |(file, bare): (&FileSource, Vec<usize>)| {
            let identity = file.identity();
            let known: Option<Vec<u32>> =
                bare.iter().map(|place| sums.get(*place).copied().flatten()).collect();
            Some(Content {
                crc32: joined(&known.filter(|known| !known.is_empty())?),
                device: identity.device,
                inode: identity.inode,
                modified_ns: identity.modified_ns.to_string(),
                changed_ns: identity.changed_ns.to_string(),
            })
        };
        parent.files.iter().zip(bare_storages(parent)).map(content).collect()
    }

    /// Whether the file is, as far as the system tells, the one that was read, and was left alone
    /// since `made_ns`.
    fn is_untouched(found: &Value, now: Identity, made_ns: i128) -> bool {
        let text = |key: &str| found.get(key).and_then(Value::as_str);
        let number = |key: &str| found.get(key).and_then(Value::as_u64);
        number("device") == Some(now.device)
            && number("inode") == Some(now.inode)
            && text("modified_ns") == Some(now.modified_ns.to_string().as_str())
            && text("changed_ns") == Some(now.changed_ns.to_string().as_str())
            && now.changed_ns.saturating_add(TICK_NS) < made_ns
    }
}

/// Whether the bytes of a parent's files without CRCs are those that a child was made from: `files`
/// is what its provenance, written at `made_ns`, says of them. All files are the same in number,
/// size and what their headers say.
///
/// # Errors
/// As reading a parent; what `go_on` says.
pub(crate) fn same_bytes(
    parent: &Checkpoint,
    files: &Value,
    made_ns: i128,
    go_on: &dyn Fn() -> Result<()>,
) -> Result<bool> {
    for (position, (file, bare)) in parent.files.iter().zip(bare_storages(parent)).enumerate() {
        if bare.is_empty() {
            continue;
        }
        let Some(found) = files.get(position).and_then(|file| file.get("content")) else {
            return Ok(false);
        };
        if Content::is_untouched(found, file.identity(), made_ns) {
            continue;
        }
        let now = content_now(parent, file, &bare, go_on)?;
        if found.get("crc32").and_then(Value::as_str) != Some(now.as_str()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A file that was read again: what it was, where its bare storages lie, and what they came to.
type Read = (Identity, Vec<u64>, String);

/// The files that were read again in this process: many children may ask for one.
static READ: Mutex<Vec<Read>> = Mutex::new(Vec::new());

/// Reads the bare storages of a file.
fn content_now(
    parent: &Checkpoint,
    file: &FileSource,
    bare: &[usize],
    go_on: &dyn Fn() -> Result<()>,
) -> Result<String> {
    let storages = bare.iter().filter_map(|place| parent.inventory.storages.get(*place));
    let places: Vec<u64> = storages.map(|storage| storage.file_offset).collect();
    let identity = file.identity();
    let read = || READ.lock().unwrap_or_else(PoisonError::into_inner);
    let known = read().iter().find(|one| one.0 == identity && one.1 == places).cloned();
    if let Some((_, _, content)) = known {
        return Ok(content);
    }
    log::info!("reading {} again: it may not be what it was", file.path().display());
    let crcs = bare.iter().map(|place| read_storage(parent, *place, go_on));
    let content = joined(&crcs.collect::<Result<Vec<u32>>>()?);
    file.check_unchanged()?;
    read().push((identity, places, content.clone()));
    Ok(content)
}

/// CRC-32 over the CRCs of a file's bare storages, in the inventory's order.
fn joined(crcs: &[u32]) -> String {
    let bytes: Vec<u8> = crcs.iter().flat_map(|crc| crc.to_le_bytes()).collect();
    format!("{:08x}", crc32(&bytes))
}

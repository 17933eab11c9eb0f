//! Finds the tensors that an interrupted run completed in every child, by journal and CRC: they
//! need no more work.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::checkpoint::{Checkpoint, ChildWriter, JournalEntry};
use crate::engine::contents::bare_storages;
use crate::engine::devices::ComputeDevice;
use crate::engine::settings::Settings;
use crate::engine::task::tensor_task::{Finished, MadeOn};
use crate::error::{Error, Kind, Result};
use crate::format::StorageSum;
use crate::merge::{MergePlan, PlannedStorage, Sums};

/// Bytes read at once.
const CHUNK: usize = 1 << 20;

/// What the report needs of a finished tensor, besides the child's bytes.
#[derive(Serialize, Deserialize)]
struct Noted {
    /// The bits of a·b, ‖a‖² and ‖b‖² as float64: text would not keep NaN.
    sums: [u64; 3],
    differs: bool,
    nonfinite: u64,
    made_on: BTreeSet<MadeOn>,
    /// What was read of parents without CRCs.
    contents: [Option<u32>; 2],
}

/// The first line of the journal of the child at this place: everything that decides its bytes. `origin` is what
/// slerp_merge.json says of it.
pub(crate) fn header(
    plan: &MergePlan,
    child: usize,
    parents: [&Checkpoint; 2],
    devices: &[ComputeDevice],
    mut origin: Value,
) -> Result<Value> {
    for (key, parent) in ["primary", "secondary"].into_iter().zip(parents) {
        let Some(named) = origin.get_mut(key).and_then(Value::as_object_mut) else { continue };
        // The same files are the same parent, wherever they are found.
        named.remove("path");
        let Some(named) = named.get_mut("files").and_then(Value::as_array_mut) else { continue };
        let bare = bare_storages(parent);
        for ((entry, file), bare) in named.iter_mut().zip(&parent.files).zip(bare) {
            let identity = file.identity();
            entry["inode"] = json!(identity.inode);
            // Beyond JSON's integers, and a date is no number to calculate with.
            entry["modified_ns"] = json!(identity.modified_ns.to_string());
            if !bare.is_empty() {
                // No CRC tells what was changed by somebody who put the time back.
                entry["changed_ns"] = json!(identity.changed_ns.to_string());
            }
        }
    }
    // t of this child alone: the others may be other ones when it is gone on with.
    let own = |storage: &PlannedStorage| PlannedStorage {
        t: storage.t.get(child).copied().into_iter().collect(),
        ..storage.clone()
    };
    let storages: Vec<PlannedStorage> = plan.storages.iter().map(own).collect();
    let decided = (&plan.tensors, &storages, &plan.shards);
    let decided = serde_json::to_string(&decided).map_err(|error| {
        Error::new(Kind::Internal, "cannot write the plan").expected("", error.to_string())
    })?;
    let mut header = json!({ "journal": 1 });
    if let (Some(header), Value::Object(origin)) = (header.as_object_mut(), origin) {
        header.extend(origin);
        // Counts of NaN and Inf are over all children that are made together.
        let schedules = || plan.options.children.iter().map(|child| &child.schedule);
        let together = plan.options.allow_nonfinite.then(|| schedules().collect::<Vec<_>>());
        header.insert("together".to_owned(), json!(together));
        // Another device may round a last place otherwise, and the notes name devices by position.
        let devices: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
        header.insert("devices".to_owned(), json!(devices));
        header.insert("plan".to_owned(), json!(crate::tensor::crc32(decided.as_bytes())));
    }
    Ok(header)
}

/// Notes a finished tensor in the journal of every child.
pub(crate) fn record(children: &[ChildWriter], storage: usize, finished: &Finished) -> Result<()> {
    let Sums { dot, a_squared, b_squared } = finished.sums;
    let noted = json!(Noted {
        sums: [dot.to_bits(), a_squared.to_bits(), b_squared.to_bits()],
        differs: finished.differs,
        nonfinite: finished.nonfinite,
        made_on: finished.made_on.clone(),
        contents: finished.contents,
    });
    children
        .iter()
        .zip(&finished.out)
        .try_for_each(|(child, sum)| child.record(storage, *sum, &noted))
}

/// Looks at what the children's work directories hold and starts their journals with it. Per
/// storage of the plan: what is known of it, where every child has it whole; its bytes are read and
/// compared with the journal's CRCs.
///
/// # Errors
/// [`Kind::Io`]; what [`Settings::interrupted`] says.
pub(crate) fn look(
    n_storages: usize,
    children: &[ChildWriter],
    settings: &Settings<'_>,
) -> Result<Vec<Option<Finished>>> {
    let claimed = claims(n_storages, children);
    let candidates: Vec<&Vec<Option<&JournalEntry>>> = claimed.iter().flatten().collect();
    let next = AtomicUsize::new(0);
    let whole = Mutex::new(vec![false; candidates.len()]);
    let check = || -> Result<()> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let position = next.fetch_add(1, Ordering::Relaxed);
            let Some(entries) = candidates.get(position) else { return Ok(()) };
            if let Some(error) = (settings.interrupted)() {
                return Err(error);
            }
            let mut held = true;
            for (child, entry) in children.iter().zip(entries.iter()) {
                held = held && entry.map_or(Ok(true), |entry| child.holds(entry, &mut buffer))?;
            }
            let mut whole = whole.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(slot) = whole.get_mut(position) {
                *slot = held;
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = settings.threads.clamp(1, candidates.len().max(1));
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(check)).collect();
        running.into_iter().try_for_each(|thread| {
            let broke = |_| Err(Error::new(Kind::Internal, "a worker broke down"));
            thread.join().unwrap_or_else(broke)
        })
    })?;
    let whole = whole.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut kept: Vec<Vec<JournalEntry>> = children.iter().map(|_| Vec::new()).collect();
    let mut finished: Vec<Option<Finished>> = (0..n_storages).map(|_| None).collect();
    for (entries, whole) in candidates.iter().zip(whole) {
        let Some(known) = whole.then(|| known(entries)).flatten() else { continue };
        let Some(storage) = entries.iter().flatten().next().map(|entry| entry.storage) else {
            continue;
        };
        for (list, entry) in kept.iter_mut().zip(entries.iter()) {
            list.extend(entry.map(JournalEntry::clone));
        }
        if let Some(slot) = finished.get_mut(storage) {
            *slot = Some(known);
        }
    }
    children.iter().zip(&kept).try_for_each(|(child, kept)| child.start_journal(kept))?;
    if children.iter().any(|child| !child.found().is_empty()) {
        let count = finished.iter().flatten().count();
        log::info!("resuming: {count} of {n_storages} tensors are there and whole");
    }
    Ok(finished)
}

/// Per storage: each child's entry (`None` for a complete child), where all children have one.
fn claims(n_storages: usize, children: &[ChildWriter]) -> Vec<Option<Vec<Option<&JournalEntry>>>> {
    let mut claimed: Vec<Vec<Option<&JournalEntry>>> =
        (0..n_storages).map(|_| vec![None; children.len()]).collect();
    for (position, child) in children.iter().enumerate() {
        for entry in child.found() {
            if let Some(slot) = claimed.get_mut(entry.storage) {
                slot[position] = Some(entry);
            }
        }
    }
    let all = |entries: &Vec<Option<&JournalEntry>>| {
        let mut pairs = children.iter().zip(entries);
        entries.iter().any(Option::is_some)
            && pairs.all(|(child, entry)| child.staging().is_none() || entry.is_some())
    };
    claimed.into_iter().map(|entries| all(&entries).then_some(entries)).collect()
}

/// What the entries say of one tensor; `None` where they contradict each other.
fn known(entries: &[Option<&JournalEntry>]) -> Option<Finished> {
    let first = entries.iter().flatten().next()?;
    if entries.iter().flatten().any(|entry| entry.found != first.found) {
        return None;
    }
    let Noted { sums: [dot, a_squared, b_squared], differs, nonfinite, made_on, contents } =
        serde_json::from_value(first.found.clone()).ok()?;
    let nothing = StorageSum { crc32: 0, first_bytes: [0; 8] };
    let sum =
        |entry: &JournalEntry| StorageSum { crc32: entry.crc32, first_bytes: entry.first_bytes };
    Some(Finished {
        sums: Sums {
            dot: f64::from_bits(dot),
            a_squared: f64::from_bits(a_squared),
            b_squared: f64::from_bits(b_squared),
        },
        out: entries.iter().map(|entry| entry.map_or(nothing, sum)).collect(),
        differs,
        nonfinite,
        made_on,
        contents,
    })
}

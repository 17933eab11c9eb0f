//! slerp_merge.json: what made a child, from what, tensor by tensor; and whether a child that is
//! there already is the one that a merge would make.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::checkpoint::{Checkpoint, Existing, existing_child};
use crate::engine::assemble::Prepared;
use crate::engine::report::{MergeReport, TensorReport};
use crate::error::{Error, Kind, Result};
use crate::format::Container;
use crate::merge::{EdgeRows, MergeOptions, Warning};
use crate::tensor::JsonPath;

/// The file's name in the child's directory.
pub(crate) const FILE_NAME: &str = "slerp_merge.json";

/// What lies where a child is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChildState {
    /// Nothing, or an empty directory.
    Absent,
    /// The very child that the merge would make.
    Done,
    /// Something else; the difference in a few words.
    Other(String),
}

/// What a child is made from and how: the same for the same child, whatever else is made with it.
#[derive(Serialize)]
struct Origin<'a> {
    tool: &'static str,
    version: &'static str,
    t: f64,
    options: MergeOptions,
    primary: Parent,
    secondary: Parent,
    tokenizer: Option<&'a str>,
    /// Where the added rows begin and end: the ids of special tokens may change without the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    edges: Option<&'a EdgeRows>,
}

#[derive(Serialize)]
struct Provenance<'a> {
    #[serde(flatten)]
    origin: Origin<'a>,
    warnings: Vec<&'a Warning>,
    /// What it was computed on, which changes no more than a last place.
    devices: &'a [String],
    tensors: &'a [TensorReport],
}

/// A parent in the provenance: where it was, and what its files were.
#[derive(Serialize)]
struct Parent {
    path: JsonPath,
    /// The entry that the user named: `FILE::KEY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    files: Vec<ParentFile>,
}

#[derive(Serialize)]
struct ParentFile {
    name: String,
    size_bytes: u64,
    /// CRC-32 over the CRCs that the file keeps of its storages: changes with any of the data.
    fingerprint: String,
}

/// The text of slerp_merge.json for the child at `t`.
pub(crate) fn text(prepared: &Prepared, report: &MergeReport, t: f64) -> Result<String> {
    let value = Provenance {
        origin: Origin::of(prepared, t),
        warnings: prepared.plan.warnings.iter().chain(&report.warnings).collect(),
        devices: &report.devices,
        tensors: &report.tensors,
    };
    let mut text = serde_json::to_string_pretty(&value).map_err(unmade)?;
    text.push('\n');
    Ok(text)
}

/// What the child at `t` is made from and how, as in slerp_merge.json.
pub(crate) fn origin(prepared: &Prepared, t: f64) -> Result<Value> {
    serde_json::to_value(Origin::of(prepared, t)).map_err(unmade)
}

fn unmade(error: serde_json::Error) -> Error {
    Error::new(Kind::Internal, format!("cannot make {FILE_NAME}")).expected("", error.to_string())
}

/// Whether `output` holds the child that `prepared` would make at `t`: made by this version, with
/// these options, from parents of these fingerprints, all files there at their sizes, config and
/// tokenizer files of the same content. Where a parent's file keeps no CRCs, the child must be
/// newer than it.
///
/// # Errors
/// [`Kind::Output`] where the output can't be looked at; as [`Checkpoint::open`] for a parent's file
/// that went away meanwhile.
pub(crate) fn child_state(prepared: &Prepared, output: &Path, t: f64) -> Result<ChildState> {
    let other = |words: &str| Ok(ChildState::Other(words.to_owned()));
    let files = prepared.weight_files();
    let (found, modified_ns) = match existing_child(output, &files, FILE_NAME)? {
        Existing::Nothing => return Ok(ChildState::Absent),
        Existing::Other(words) => return Ok(ChildState::Other(words)),
        Existing::Child { provenance, modified_ns } => (provenance, modified_ns),
    };
    let wanted = origin(prepared, t)?;
    for (key, words) in [
        ("tool", "it was made by another tool"),
        ("version", "it was made by another version of this tool"),
        ("t", "it was made with another t"),
        ("options", "it was made with other options"),
        ("tokenizer", "it has another tokenizer"),
        ("edges", "its added rows are made from other edge rows"),
    ] {
        if found.get(key) != wanted.get(key) {
            return other(words);
        }
    }
    for (key, words) in [
        ("primary", "it was made from another primary"),
        ("secondary", "it was made from another secondary"),
    ] {
        let of = |value: &Value, what| value.get(key).and_then(|parent| parent.get(what)).cloned();
        if ["key", "files"].iter().any(|what| of(&found, what) != of(&wanted, what)) {
            return other(words);
        }
    }
    for parent in [&prepared.primary, &prepared.secondary] {
        if changed_since(parent, modified_ns) {
            return other("a parent whose data has no checksums is newer");
        }
    }
    match prepared.side_files.difference(output)? {
        Some(name) => Ok(ChildState::Other(format!("its {name} differs"))),
        None => Ok(ChildState::Done),
    }
}

/// Whether a weight file without CRCs was changed after `time_ns`.
fn changed_since(parent: &Checkpoint, time_ns: i128) -> bool {
    let storages = &parent.inventory.storages;
    parent.files.iter().enumerate().any(|(position, file)| {
        let bare = parent.containers.get(position) != Some(&Container::Zip)
            || storages.iter().any(|storage| {
                storage.file == position && storage.crc32.is_none() && storage.size_bytes > 0
            });
        bare && file.identity().modified_ns > time_ns
    })
}

impl Origin<'_> {
    fn of(prepared: &Prepared, t: f64) -> Origin<'_> {
        Origin {
            tool: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            t,
            options: MergeOptions { t: vec![t], ..prepared.plan.options.clone() },
            primary: Parent::of(&prepared.primary),
            secondary: Parent::of(&prepared.secondary),
            tokenizer: prepared.side_files.tokenizer_reason.as_deref(),
            edges: prepared.plan.edges.as_ref(),
        }
    }
}

impl Parent {
    fn of(checkpoint: &Checkpoint) -> Parent {
        let mut files = Vec::with_capacity(checkpoint.files.len());
        for (position, file) in checkpoint.files.iter().enumerate() {
            let mut bytes = Vec::new();
            for storage in checkpoint.inventory.storages.iter().filter(|s| s.file == position) {
                bytes.extend_from_slice(storage.key.as_bytes());
                bytes.extend_from_slice(&storage.size_bytes.to_le_bytes());
                bytes.extend_from_slice(&storage.crc32.unwrap_or(0).to_le_bytes());
            }
            files.push(ParentFile {
                name: file.path().file_name().unwrap_or_default().to_string_lossy().into_owned(),
                size_bytes: file.identity().size_bytes,
                fingerprint: format!("{:08x}", crate::engine::source::crc32(&bytes)),
            });
        }
        let path = checkpoint.path.canonicalize().unwrap_or_else(|_| checkpoint.path.clone());
        Parent { path: JsonPath(path), key: checkpoint.reading.key.clone(), files }
    }
}

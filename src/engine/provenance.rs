//! Writes slerp_merge.json: what made a child, from what, tensor by tensor. Checks by it whether an
//! existing child is the one that a merge would make.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::checkpoint::{
    Checkpoint, Existing, PROVENANCE_FILE, check_output, existing_child, file_of, has_journal,
    is_marked,
};
use crate::engine::contents::ContentSums;
use crate::engine::identity::{Content, same_bytes};
use crate::engine::prepared::Prepared;
use crate::engine::report::{MergeReport, TensorReport};
use crate::error::{Error, Kind, Result};
use crate::merge::{ByWord, EdgeRows, Filter, Schedule, Warning};
use crate::tensor::JsonPath;

/// Options that mean something where nothing is merged.
const OF_CONVERSIONS: [&str; 5] =
    ["dtype", "format", "max_shard_bytes", "copy_code", "allow_nonfinite"];

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
    /// t of the tensors that no filter fits; a model that was converted has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    t: Option<Option<f64>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    t_for: Vec<Filter>,
    options: Value,
    primary: Parent,
    /// A model that was converted has no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    secondary: Option<Parent>,
    tokenizer: Option<&'a str>,
    /// Where the added rows begin and end: the ids of special tokens may change without the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    edges: Option<&'a EdgeRows>,
    /// Which rows of the parents are which of the child's, where they were merged by word.
    #[serde(skip_serializing_if = "Option::is_none")]
    by_word: Option<&'a ByWord>,
}

#[derive(Serialize)]
struct Provenance<'a> {
    #[serde(flatten)]
    origin: Origin<'a>,
    warnings: Vec<&'a Warning>,
    /// What it was computed on, which changes no more than a last place.
    devices: &'a [String],
    tensors: Vec<Tensor<'a>>,
}

/// A tensor of the child and where it lies between the parents; no t where it is carried.
#[derive(Serialize)]
struct Tensor<'a> {
    #[serde(flatten)]
    report: &'a TensorReport,
    t: Option<f64>,
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
    /// CRC-32 over what the headers say of the file's tensors and the CRCs that it keeps of its
    /// storages: changes with any of the data where there is a CRC of it.
    fingerprint: String,
    /// What else it is known by, where it lacks CRCs: known once the merge has read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Content>,
}

/// The text of slerp_merge.json for the child at this place.
pub(crate) fn text(prepared: &Prepared, report: &MergeReport, child: usize) -> Result<String> {
    let schedule = schedule(prepared, child)?;
    let value = Provenance {
        origin: Origin::of(prepared, schedule, Some(&report.contents)).map_err(unmade)?,
        warnings: prepared.plan.warnings.iter().chain(&report.warnings).collect(),
        devices: &report.devices,
        tensors: report.tensors.iter().map(|tensor| Tensor::of(tensor, child)).collect(),
    };
    let mut text = serde_json::to_string_pretty(&value).map_err(unmade)?;
    text.push('\n');
    Ok(text)
}

/// What the child at this place is made from and how, as in slerp_merge.json, as far as it is known
/// before the data is read.
pub(crate) fn origin(prepared: &Prepared, child: usize) -> Result<Value> {
    origin_of(prepared, schedule(prepared, child)?)
}

fn origin_of(prepared: &Prepared, schedule: &Schedule) -> Result<Value> {
    Origin::of(prepared, schedule, None).and_then(serde_json::to_value).map_err(unmade)
}

fn schedule(prepared: &Prepared, child: usize) -> Result<&Schedule> {
    let child = prepared.plan.options.children.get(child);
    let child = child.ok_or_else(|| Error::new(Kind::Internal, "more outputs than children"));
    child.map(|child| &child.schedule)
}

fn unmade(error: serde_json::Error) -> Error {
    Error::new(Kind::Internal, format!("cannot make {PROVENANCE_FILE}"))
        .expected("", error.to_string())
}

impl Prepared {
    /// Whether `output` holds the very child that this merge would make by `schedule`.
    ///
    /// # Errors
    /// [`Kind::Output`] where the output can't be looked at; those of reading a parent without CRCs
    /// again; what [`Job::interrupted`](crate::engine::Job::interrupted) says.
    pub fn child_state(&self, output: &Path, schedule: &Schedule) -> Result<ChildState> {
        child_state(self, output, schedule, &|| self.job.interrupted.go_on())
    }

    /// Notes which children a resumed merge need not make.
    pub(crate) fn find_complete(&mut self) -> Result<()> {
        if !self.job.resume {
            return Ok(());
        }
        let files = [file_of(&self.job.primary), file_of(&self.job.secondary)];
        let parents = [files[0].as_path(), files[1].as_path()];
        let children = &self.plan.options.children;
        for (position, (output, child)) in self.outputs.iter().zip(children).enumerate() {
            // With --overwrite, an older child of the same merge may be about to be replaced.
            let begun = (self.job.overwrite && has_journal(output)) || is_marked(output);
            if !begun && self.child_state(output, &child.schedule)? == ChildState::Done {
                self.complete[position] = true;
            } else {
                check_output(output, &parents, self.job.overwrite)?;
            }
        }
        Ok(())
    }
}

/// Whether `output` holds the child that `prepared` would make by `schedule`: made by this version, with
/// these options, from parents of these fingerprints, all files there at their sizes, config and
/// tokenizer files of the same content. A parent's file that keeps no CRCs is read again where it
/// may not be the one that the merge read; `go_on` is asked meanwhile.
///
/// # Errors
/// [`Kind::Output`] where the output can't be looked at; as [`Checkpoint::open`] for a parent's file
/// that went away meanwhile.
fn child_state(
    prepared: &Prepared,
    output: &Path,
    schedule: &Schedule,
    go_on: &dyn Fn() -> Result<()>,
) -> Result<ChildState> {
    let other = |words: &str| Ok(ChildState::Other(words.to_owned()));
    let files = prepared.weight_files();
    let (found, modified_ns) = match existing_child(output, &files)? {
        Existing::Nothing => return Ok(ChildState::Absent),
        Existing::Other(words) => return Ok(ChildState::Other(words)),
        Existing::Child { provenance, modified_ns } => (provenance, modified_ns),
    };
    let wanted = origin_of(prepared, schedule)?;
    for (key, words) in [
        ("tool", "it was made by another tool"),
        ("version", "it was made by another version of this tool"),
        ("t", "it was made with another t"),
        ("t_for", "it was made with another t for some tensors"),
        ("options", "it was made with other options"),
        ("tokenizer", "it has another tokenizer"),
        ("by_word", "its rows stand for other words"),
        ("edges", "its added rows are made from other edge rows"),
    ] {
        if found.get(key) != wanted.get(key) {
            return other(words);
        }
    }
    let sides = [
        ("primary", "it was made from another primary", &prepared.primary),
        ("secondary", "it was made from another secondary", &prepared.secondary),
    ];
    let files = |value: &Value, key: &str| value.get(key)?.get("files").cloned();
    let inner = |value: &Value, key: &str| value.get(key)?.get("key").cloned();
    for (key, words, _) in sides {
        let same = files(&found, key).map(without_content) == files(&wanted, key)
            && inner(&found, key) == inner(&wanted, key);
        if !same {
            return other(words);
        }
    }
    for (key, words, parent) in sides {
        let files = files(&found, key).unwrap_or_default();
        if !same_bytes(parent, &files, modified_ns, go_on)? {
            return other(words);
        }
    }
    match prepared.side_files.difference(output)? {
        Some(name) => Ok(ChildState::Other(format!("its {name} differs"))),
        None => Ok(ChildState::Done),
    }
}

/// The files of a parent, but for what is known of them only once they are read.
fn without_content(mut files: Value) -> Value {
    let each = files.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut);
    each.for_each(|file| drop(file.remove("content")));
    files
}

impl Origin<'_> {
    fn of<'a>(
        prepared: &'a Prepared,
        schedule: &Schedule,
        contents: Option<&ContentSums>,
    ) -> serde_json::Result<Origin<'a>> {
        let Schedule { filters, rest } = schedule.normal();
        let mut options = serde_json::to_value(&prepared.plan.options)?;
        if let Some(options) = options.as_object_mut() {
            // What is the same with other children, and with flags in place of a recipe.
            options.remove("children");
            options.remove("foreign_filters");
        }
        let sums = |lane: usize| contents.map_or(&[][..], |contents| &contents[lane]);
        let merged = !prepared.plan.conversion;
        if let (Some(options), false) = (options.as_object_mut(), merged) {
            options.retain(|key, _| OF_CONVERSIONS.contains(&key.as_str()));
            options.insert("convert".to_owned(), Value::Bool(true));
        }
        let tokenizer = prepared.side_files.tokenizer_reason.as_deref();
        Ok(Origin {
            tool: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            t: merged.then_some(rest),
            t_for: if merged { filters } else { Vec::new() },
            options,
            primary: Parent::of(&prepared.primary, sums(0)),
            secondary: merged.then(|| Parent::of(&prepared.secondary, sums(1))),
            tokenizer: tokenizer.filter(|_| merged),
            edges: prepared.plan.edges.as_ref(),
            by_word: prepared.plan.by_word.as_deref(),
        })
    }
}

impl Tensor<'_> {
    fn of(report: &TensorReport, child: usize) -> Tensor<'_> {
        Tensor { report, t: report.t.get(child).copied() }
    }
}

impl Parent {
    fn of(checkpoint: &Checkpoint, sums: &[Option<u32>]) -> Parent {
        let fingerprints = fingerprints(checkpoint);
        let contents = Content::of(checkpoint, sums);
        let files = checkpoint.files.iter().zip(fingerprints).zip(contents);
        let files = files.map(|((file, fingerprint), content)| ParentFile {
            name: file.path().file_name().unwrap_or_default().to_string_lossy().into_owned(),
            size_bytes: file.identity().size_bytes,
            fingerprint,
            content,
        });
        let path = checkpoint.path.canonicalize().unwrap_or_else(|_| checkpoint.path.clone());
        let key = checkpoint.reading.key.clone();
        Parent { path: JsonPath(path), key, files: files.collect() }
    }
}

/// Per file: what it is known by from its headers alone.
fn fingerprints(checkpoint: &Checkpoint) -> Vec<String> {
    let inventory = &checkpoint.inventory;
    let mut bytes = vec![Vec::new(); checkpoint.files.len()];
    for storage in &inventory.storages {
        let Some(bytes) = bytes.get_mut(storage.file) else { continue };
        bytes.extend_from_slice(storage.key.as_bytes());
        bytes.extend_from_slice(&storage.size_bytes.to_le_bytes());
        bytes.extend_from_slice(&storage.crc32.unwrap_or(0).to_le_bytes());
    }
    for tensor in &inventory.tensors {
        let Some(bytes) = bytes.get_mut(inventory.file_of(tensor)) else { continue };
        bytes.extend_from_slice(tensor.name.as_bytes());
        bytes.extend_from_slice(tensor.dtype.name().as_bytes());
        let layout = &tensor.layout;
        let numbers = layout.shape.iter().chain(&layout.stride).chain([&layout.storage_offset]);
        numbers.for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        bytes.extend_from_slice(&(tensor.storage as u64).to_le_bytes());
    }
    bytes.iter().map(|bytes| format!("{:08x}", crate::tensor::crc32(bytes))).collect()
}

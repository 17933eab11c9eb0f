//! Plans every merge of a manifest before any runs, and collects the errors of all of them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::batch::clash::clashes;
use crate::batch::job::{JobOptions, PlannedChild, PlannedJob};
use crate::batch::manifest::{Entry, Manifest};
use crate::batch::outcome::{JobResult, Status};
use crate::batch::sweep::{Sweep, sweeps};
use crate::checkpoint::{Checkpoint, Room, check_output, file_of, resolved, room_at};
use crate::engine::{ChildState, Interrupted, Prepared, prepare};
use crate::error::{Error, Kind, Result};
use crate::merge::Schedule;
use crate::tensor::escape;

/// Parses a merge's arguments as the command line does.
pub type Resolved<'r> = &'r dyn Fn(&[OsString]) -> Result<JobOptions>;

/// Which merges of a manifest are to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Every one.
    All,
    /// The one at this position, from 0.
    One(usize),
}

/// A batch as it will run.
#[derive(Debug)]
pub struct BatchPlan {
    /// The merges that can run, in the manifest's order.
    pub jobs: Vec<PlannedJob>,
    /// Results of the merges that can't.
    pub refused: Vec<JobResult>,
    /// The errors of all merges.
    pub findings: Vec<Finding>,
}

impl BatchPlan {
    /// The sweeps that would run.
    pub fn sweeps(&self) -> Vec<Sweep> {
        sweeps(&self.jobs)
    }
}

/// An error, with the merges that it concerns.
#[derive(Debug)]
pub struct Finding {
    /// Positions of the merges in the manifest.
    pub jobs: Vec<usize>,
    /// Whether these merges can't run; if not, each could run alone, but not all together.
    pub refuses: bool,
    /// What is wrong.
    pub error: Error,
}

/// A merge as the manifest has it, not yet checked against the disk.
struct Draft {
    entry: Entry,
    options: JobOptions,
    outputs: Vec<PathBuf>,
}

impl Draft {
    fn new(entry: Entry, resolve: Resolved<'_>) -> Result<Draft> {
        let options = resolve(&entry.arguments)?;
        let outputs = entry.outputs(&options.merge.children)?;
        Ok(Draft { entry, options, outputs })
    }

    /// The parents' paths on the disk, without `::KEY`.
    fn parents(&self) -> [PathBuf; 2] {
        [file_of(&self.entry.primary), file_of(&self.entry.secondary)]
    }
}

/// Plans a manifest: reads the headers of every parent, writes nothing.
///
/// An error in one merge hides none in the others. Of merges that are not selected, only names and
/// outputs are checked, against those of the selected ones.
pub fn plan(
    manifest: Manifest,
    selection: Selection,
    resolve: Resolved<'_>,
    interrupted: &Interrupted,
) -> BatchPlan {
    let mut findings = Vec::new();
    let mut drafts = Vec::new();
    let n_jobs = manifest.entries.len();
    let names = manifest.names;
    let mut find = |jobs: Vec<usize>, error| findings.push(Finding { jobs, refuses: true, error });
    for (index, entry) in manifest.entries.into_iter().enumerate() {
        match entry {
            Ok(entry) => match Draft::new(entry, resolve) {
                Ok(draft) => drafts.push(draft),
                Err(error) => find(vec![index], error),
            },
            Err(errors) => errors.into_iter().for_each(|error| find(vec![index], error)),
        }
    }
    check_names(&names, &mut find);
    check_outputs(&drafts, &mut find);
    let selected = |index: usize| selection == Selection::All || selection == Selection::One(index);
    findings.retain(|finding| finding.jobs.iter().any(|job| selected(*job)));
    drafts.retain(|draft| selected(draft.entry.index));
    let mut jobs = look_at_disk(&drafts, interrupted, &mut findings);
    let refused = |index: usize| {
        findings.iter().any(|finding| finding.refuses && finding.jobs.contains(&index))
    };
    jobs.retain(|job| !refused(job.index));
    let results = (0..n_jobs).filter(|index| selected(*index) && refused(*index)).map(|index| {
        let outputs = drafts.iter().find(|draft| draft.entry.index == index);
        let outputs = outputs.map_or(&[][..], |draft| &draft.outputs);
        let mut result = JobResult::new(index, names[index].clone(), Status::Refused, outputs);
        let own = findings.iter().filter(|finding| finding.jobs.contains(&index));
        result.errors = own.map(|finding| (&finding.error).into()).collect();
        result
    });
    let refused = results.collect();
    findings.extend(check_rooms(&jobs));
    findings.sort_by_key(|finding| finding.jobs.first().copied());
    BatchPlan { jobs, refused, findings }
}

fn check_names(names: &[Option<String>], find: &mut impl FnMut(Vec<usize>, Error)) {
    for (index, name) in names.iter().enumerate() {
        if name.is_some() && names[..index].contains(name) {
            let first = names.iter().position(|other| other == name).unwrap_or(0);
            let words = format!("merges[{first}] and merges[{index}] have one name");
            find(vec![index], Error::new(Kind::Usage, words).expected("different names", ""));
        }
    }
}

/// Finds outputs that clash with each other or with another merge's parents.
fn check_outputs(drafts: &[Draft], find: &mut impl FnMut(Vec<usize>, Error)) {
    let mut owners = Vec::new();
    let mut outputs = Vec::new();
    for draft in drafts {
        outputs.extend(draft.outputs.iter().cloned());
        owners.extend(draft.outputs.iter().map(|_| draft.entry.index));
    }
    for clash in clashes(&outputs) {
        let (above, below) = (owners[clash.above], owners[clash.below]);
        let words = match clash.same {
            true => "two children have one output",
            false => "an output is inside another one",
        };
        let mut jobs = vec![above, below];
        jobs.sort_unstable();
        jobs.dedup();
        let found = format!("merges[{above}] and merges[{below}]");
        let error = Error::new(Kind::Usage, words).file(&outputs[clash.below]);
        find(jobs, error.expected("a directory for each child", found));
    }
    let parents: Vec<(usize, PathBuf)> = drafts
        .iter()
        .flat_map(|draft| draft.parents().map(|parent| (draft.entry.index, resolved(&parent))))
        .collect();
    for (output, owner) in outputs.iter().zip(&owners) {
        let place = resolved(output);
        for (job, parent) in parents.iter().filter(|(job, _)| job != owner) {
            if *parent == place {
                find(vec![*job], uses_a_child(output, *owner));
            } else if parent.exists() && (place.starts_with(parent) || parent.starts_with(&place)) {
                find(vec![*owner], holds_a_parent(output, parent, *job));
                break;
            }
        }
    }
}

fn uses_a_child(output: &Path, maker: usize) -> Error {
    Error::new(Kind::Usage, "a parent is the child of another merge of this manifest")
        .file(output)
        .expected(
            "parents that are there before the batch",
            format!("the output of merges[{maker}]"),
        )
        .with_hint("put what uses a child into a second manifest")
}

fn holds_a_parent(output: &Path, parent: &Path, user: usize) -> Error {
    Error::new(Kind::Output, "output holds or is inside a parent of another merge")
        .file(output)
        .expected(
            "a directory apart from all parents",
            format!("parent `{}` of merges[{user}]", escape(&parent.to_string_lossy())),
        )
}

/// Opens each pair of parents once per set of options, and looks at what is at the outputs.
fn look_at_disk(
    drafts: &[Draft],
    interrupted: &Interrupted,
    findings: &mut Vec<Finding>,
) -> Vec<PlannedJob> {
    let mut jobs = Vec::new();
    let mut seen: Vec<usize> = Vec::new();
    for (position, draft) in drafts.iter().enumerate() {
        if seen.contains(&position) {
            continue;
        }
        let alike: Vec<usize> = (position..drafts.len())
            .filter(|other| {
                let other = &drafts[*other];
                other.entry.primary == draft.entry.primary
                    && other.entry.secondary == draft.entry.secondary
                    && other.options.differ_in_t_only(&draft.options)
            })
            .collect();
        let (primary, secondary) = (&draft.entry.primary, &draft.entry.secondary);
        let job = draft.options.job(primary, secondary, interrupted.clone());
        let prepared = match prepare(job) {
            Ok(prepared) => Some(prepared),
            Err(error) => {
                let indices: Vec<usize> =
                    alike.iter().map(|position| drafts[*position].entry.index).collect();
                for error in all_errors(error, draft) {
                    findings.push(Finding { jobs: indices.clone(), refuses: true, error });
                }
                None
            }
        };
        for other in &alike {
            let planned = look_at_outputs(&drafts[*other], prepared.as_ref(), findings);
            jobs.extend(planned);
        }
        seen.extend(alike);
    }
    jobs.sort_by_key(|job| job.index);
    jobs
}

/// The error, and that of the other parent where that can't be opened either.
fn all_errors(first: Error, draft: &Draft) -> Vec<Error> {
    let mut errors = vec![first];
    for parent in [&draft.entry.primary, &draft.entry.secondary] {
        if let Err(error) = Checkpoint::open_as(parent, &draft.options.opening)
            && errors.iter().all(|known| known.to_string() != error.to_string())
        {
            errors.push(error);
        }
    }
    errors
}

/// The merge with what is at its outputs; `None` where it has errors.
fn look_at_outputs(
    draft: &Draft,
    prepared: Option<&Prepared>,
    findings: &mut Vec<Finding>,
) -> Option<PlannedJob> {
    let index = draft.entry.index;
    let mut children = Vec::new();
    let mut sound = prepared.is_some();
    for (child, output) in draft.options.merge.children.iter().zip(&draft.outputs) {
        match look_at_output(draft, prepared, output, &child.schedule) {
            Ok(present) => children.push(PlannedChild {
                child: child.clone(),
                output: output.clone(),
                bytes: prepared.map_or(0, Prepared::child_bytes),
                files: prepared.map_or(0, Prepared::child_files),
                present,
            }),
            Err(error) => {
                findings.push(Finding { jobs: vec![index], refuses: true, error });
                sound = false;
            }
        }
    }
    sound.then(|| PlannedJob {
        index,
        name: draft.entry.name.clone(),
        primary: draft.entry.primary.clone(),
        secondary: draft.entry.secondary.clone(),
        options: draft.options.clone(),
        children,
    })
}

/// Whether the child exists already.
fn look_at_output(
    draft: &Draft,
    prepared: Option<&Prepared>,
    output: &Path,
    schedule: &Schedule,
) -> Result<bool> {
    let overwrite = draft.options.overwrite;
    let files = draft.parents();
    let parents = [files[0].as_path(), files[1].as_path()];
    let Some(prepared) = prepared else {
        // Without the parents, whether it is their child is unknown; its path can be checked.
        return check_output(output, &parents, true).map(|()| false);
    };
    match prepared.child_state(output, schedule)? {
        ChildState::Done => return Ok(true),
        ChildState::Other(difference) if !overwrite && output.is_dir() => {
            check_output(output, &parents, true)?;
            return Err(Error::new(
                Kind::Output,
                "output exists and is not the child of this merge",
            )
            .file(output)
            .expected("that child, or nothing", difference)
            .with_hint("name another output, or set `overwrite` to replace it"));
        }
        ChildState::Other(_) | ChildState::Absent => {}
    }
    check_output(output, &parents, overwrite).map(|()| false)
}

/// Finds file systems without room for all children that are to be made on them.
fn check_rooms(jobs: &[PlannedJob]) -> Vec<Finding> {
    let mut rooms: Vec<(Room, [u64; 2], Vec<usize>)> = Vec::new();
    let mut findings = Vec::new();
    for job in jobs {
        for child in job.children.iter().filter(|child| !child.present) {
            let room = match room_at(&child.output) {
                Ok(room) => room,
                Err(error) => {
                    findings.push(Finding { jobs: vec![job.index], refuses: false, error });
                    continue;
                }
            };
            let needed = [child.bytes, child.files];
            match rooms.iter_mut().find(|known| known.0.device == room.device) {
                Some((known, sums, jobs)) => {
                    known.join(&room);
                    for (sum, more) in sums.iter_mut().zip(needed) {
                        *sum = sum.saturating_add(more);
                    }
                    if jobs.last() != Some(&job.index) {
                        jobs.push(job.index);
                    }
                }
                None => rooms.push((room, needed, vec![job.index])),
            }
        }
    }
    for (room, [bytes, files], jobs) in rooms {
        let checked = room.check(bytes).and_then(|()| room.check_files(files));
        if let Err(error) = checked {
            findings.push(Finding { jobs, refuses: false, error });
        }
    }
    findings
}

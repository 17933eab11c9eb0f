//! Finds checkpoints below a directory, by names alone. Every directory is entered once, by its own
//! path rather than by a link, so that loops end and nothing is found twice.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use crate::checkpoint::files::source::FileSource;
use crate::checkpoint::output::work_dir::is_work_dir;
use crate::checkpoint::parent::checkpoint::Checkpoint;
use crate::checkpoint::parent::hub::HubEntry;
use crate::checkpoint::parent::strictness::Opening;
use crate::checkpoint::weights::choice::{Choice, choose};
use crate::checkpoint::weights::kinds::is_weight_file;
use crate::checkpoint::weights::names::{WeightName, is_index, shard_of};
use crate::error::{Error, Kind, Result};
use crate::format::{Rule, looks_like_torch};

/// Directories of the kernel, not on disk: reading some of their files changes state or blocks.
const NOT_ON_DISK: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Directories of a model in the Hub's cache in which files don't have their own names.
const HUB_INNER: [&str; 3] = ["blobs", "refs", ".no_exist"];

/// A pickle with objects of other programs in it counts as settings, not as a model, below this
/// size in bytes.
const SMALLEST_MODEL: u64 = 64 << 10;

/// A directory or file that may be a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its path; begins with the path that the user gave.
    pub path: PathBuf,
    /// Its entry in a Hub cache, if it is in one.
    pub hub: Option<HubEntry>,
    /// Whether its name says that it is a model: then errors of opening it are reported.
    named: bool,
}

/// The result of a search.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// Candidates in the order of their paths.
    pub candidates: Vec<Candidate>,
    /// Directories that could not be read.
    pub unreadable: Vec<PathBuf>,
}

impl Candidate {
    fn new(path: PathBuf, named: bool) -> Candidate {
        let hub = HubEntry::of(&path);
        Candidate { path, hub, named }
    }

    /// Opens it by its headers; `None` where it is no checkpoint after all.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`], where its name or its first bytes say that it is a
    /// checkpoint.
    pub fn open(&self, opening: &Opening) -> Result<Option<Checkpoint>> {
        match Checkpoint::open_as(&self.path, opening) {
            Ok(checkpoint) if !self.named && checkpoint.inventory.tensors.is_empty() => Ok(None),
            Ok(checkpoint) => Ok(Some(checkpoint)),
            Err(error) if self.named || self.is_broken(&error) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Whether a file whose name does not say so is a checkpoint, but broken.
    fn is_broken(&self, error: &Error) -> bool {
        let Ok(source) = FileSource::open(&self.path) else { return false };
        match error.rule() {
            None | Some(Rule::NoStateDict) => false,
            Some(Rule::ForbiddenGlobal) if source.identity().size_bytes < SMALLEST_MODEL => false,
            Some(_) => looks_like_torch(&source),
        }
    }
}

/// Finds what may be a checkpoint in or below `starts`. Links to directories are followed, but not
/// to directories above; `/proc` and the like are skipped, as are `.git` and unfinished children.
///
/// # Errors
/// [`Kind::NoInput`] where one of `starts` can't be looked at. What can't be read below them is no
/// error: see [`Discovery::unreadable`].
pub fn discover(starts: &[PathBuf]) -> Result<Discovery> {
    let mut walk = Walk::default();
    for start in starts {
        let refused = |error| Error::from_io(Kind::NoInput, "cannot look into", start, error);
        let meta = std::fs::metadata(start).map_err(refused)?;
        if meta.is_dir() {
            std::fs::read_dir(start).map_err(refused)?;
            walk.above
                .extend(start.canonicalize().map_err(refused)?.ancestors().map(Path::to_owned));
            walk.queue.push_back(start.clone());
        } else {
            walk.candidates.push(Candidate::new(start.clone(), true));
        }
    }
    while let Some(start) = walk.queue.pop_front() {
        walk.directory(&start);
    }
    walk.unreadable.sort();
    walk.unreadable.dedup();
    let mut candidates = walk.candidates;
    for (dir, files) in &walk.files {
        candidates.extend(candidates_of(dir, files));
    }
    candidates.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Discovery { candidates, unreadable: walk.unreadable })
}

/// The state of a search.
#[derive(Default)]
struct Walk {
    /// Starts, followed by the links that were met, which come last so that real paths win.
    queue: VecDeque<PathBuf>,
    /// The starts and all directories above them, links resolved: no link to these is followed.
    above: HashSet<PathBuf>,
    /// Device and inode of every directory that was entered.
    entered: HashSet<(u64, u64)>,
    /// Names of interest, by directory.
    files: BTreeMap<PathBuf, Vec<OsString>>,
    candidates: Vec<Candidate>,
    unreadable: Vec<PathBuf>,
}

impl Walk {
    /// Searches one directory. Errors below it are noted.
    fn directory(&mut self, start: &Path) {
        let Walk { queue, above, entered, files, unreadable, .. } = self;
        if !is_first(start, entered) {
            return;
        }
        let walk = WalkDir::new(start).into_iter().filter_entry(|entry| is_entered(entry, entered));
        for entry in walk {
            let entry = match entry {
                Ok(entry) if entry.depth() > 0 => entry,
                Ok(_) => continue,
                Err(error) => {
                    // What vanished meanwhile is not reported.
                    let gone = error.io_error().map(std::io::Error::kind)
                        == Some(std::io::ErrorKind::NotFound);
                    unreadable.extend(error.path().filter(|_| !gone).map(Path::to_owned));
                    continue;
                }
            };
            let file_type = entry.file_type();
            if file_type.is_symlink() && entry.path().is_dir() {
                if entry.path().canonicalize().is_ok_and(|target| !above.contains(&target)) {
                    queue.push_back(entry.into_path());
                }
            } else if (file_type.is_file() || file_type.is_symlink())
                && is_worth_a_look(entry.file_name())
                && let Some(dir) = entry.path().parent()
            {
                files.entry(dir.to_owned()).or_default().push(entry.file_name().to_owned());
            }
        }
    }
}

/// Whether to enter a directory (files always pass): not twice, and not where no model can be.
fn is_entered(entry: &DirEntry, entered: &mut HashSet<(u64, u64)>) -> bool {
    if !entry.file_type().is_dir() || entry.depth() == 0 {
        return true;
    }
    let name = entry.file_name().to_string_lossy();
    let parent = entry.path().parent().and_then(Path::file_name).unwrap_or_default();
    let inner =
        parent.as_encoded_bytes().starts_with(b"models--") && HUB_INNER.contains(&name.as_ref());
    let on_disk = NOT_ON_DISK.iter().all(|path| entry.path() != Path::new(path));
    !inner && !is_work_dir(&name) && name != ".git" && on_disk && is_first(entry.path(), entered)
}

/// Whether a directory is met for the first time. Errors show when it is read.
fn is_first(dir: &Path, entered: &mut HashSet<(u64, u64)>) -> bool {
    std::fs::metadata(dir).map_or(true, |meta| entered.insert((meta.dev(), meta.ino())))
}

fn is_worth_a_look(name: &OsStr) -> bool {
    name == "config.json" || name.to_str().is_some_and(is_index) || is_weight_file(name)
}

/// The candidates among the files of one directory, chosen as `weights_of` does. Models besides the
/// directory's own are candidates of their own; shards without an index are reported by their
/// directory.
fn candidates_of(dir: &Path, files: &[OsString]) -> Vec<Candidate> {
    let texts: Vec<_> = files.iter().map(|file| file.to_string_lossy()).collect();
    let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
    let has_config = texts.contains(&"config.json");
    let (whole, own) = match choose(&texts) {
        Choice::Taken(taken) => (taken.is_known || has_config, vec![taken.file.to_owned()]),
        Choice::Parts(parts) => {
            let parts = texts.iter().filter(|name| parts.holds(name));
            (true, parts.map(|name| (*name).to_owned()).collect())
        }
        Choice::Shards(_) => (true, Vec::new()),
        Choice::Several(_, shards) => (shards > 0, Vec::new()),
        Choice::Nothing => (false, Vec::new()),
    };
    let same = |a: &str, b: &str| {
        let of = |name| WeightName::parse(name).map(|name| (name.names, name.variant));
        a == b || (of(a).is_some() && of(a) == of(b))
    };
    let alone = files.iter().zip(&texts).filter(|(file, text)| {
        let is_whole = is_weight_file(file) && shard_of(text).is_none_or(|(_, of)| of == 1);
        let is_own = whole && own.iter().any(|name| same(name, text));
        (is_index(text) || is_whole) && !is_own
    });
    let named = whole.then(|| Candidate::new(dir.to_path_buf(), true));
    let alone = alone.map(|(file, text)| Candidate::new(dir.join(file), is_index(text)));
    named.into_iter().chain(alone).collect()
}

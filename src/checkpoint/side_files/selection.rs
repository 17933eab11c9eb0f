//! Selects the files beside a model's weights that are copied to a child: small ones that are
//! neither weights nor documentation nor code. Names and sizes decide; contents are read only as
//! far as needed to recognise a file.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use crate::checkpoint::files::small_file::{check_readable, is_lfs_pointer, read_bounded};
use crate::checkpoint::side_files::role::{Role, is_left_folder, role};
use crate::checkpoint::side_files::tokenizer_files::TEMPLATES;
use crate::error::{Error, Kind, Result};
use crate::tensor::{escape, listed};

/// Largest file that is copied, unless its name is on a list.
pub(crate) const SMALL_BYTES: u64 = 16 << 20;

/// Most files, and bytes of them, that are copied without their names being on a list.
const MOST_FILES: usize = 1000;
const MOST_BYTES: u64 = 256 << 20;

/// Most entries that are looked at below a folder, and deepest level.
const MOST_ENTRIES: usize = 10_000;
const DEEPEST: usize = 8;

/// A file to be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SideFile {
    /// Path relative to the model's directory.
    pub(crate) name: String,
    /// Path on disk.
    pub(crate) path: PathBuf,
    /// Its length in bytes.
    pub(crate) bytes: u64,
}

/// Why a file is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    Weights,
    WeightSettings,
    Tokenizer,
    Code,
    Folder,
    Large,
    Many,
    Pointer,
    Odd,
    Record,
    Document,
    Hidden,
}

impl Reason {
    fn words(self) -> &'static str {
        match self {
            Reason::Weights => "other weights",
            Reason::WeightSettings => "settings of other weights",
            Reason::Tokenizer => "the tokenizer that was not taken",
            Reason::Code => "code (--copy-code takes *.py)",
            Reason::Folder => "folders",
            Reason::Large => "larger than 16 MiB",
            Reason::Many => "beyond 1000 files, 256 MiB or 8 folders in one another",
            Reason::Pointer => "git-lfs pointers",
            Reason::Odd => "no plain or readable files",
            Reason::Record => "records of training",
            Reason::Document => "documentation",
            Reason::Hidden => "hidden",
        }
    }
}

/// The files in a model's directory, sorted into those to copy and those left out.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// Files to copy, sorted.
    pub(crate) copied: Vec<SideFile>,
    /// Weights of modules: copied only where both parents have the same.
    pub(crate) module_weights: Vec<SideFile>,
    left: BTreeMap<Reason, Vec<String>>,
}

/// What the selection depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// Names of the weight files and their index, which are merged.
    pub(crate) taken: &'a HashSet<String>,
    /// Folders that modules.json names.
    pub(crate) modules: &'a [String],
    /// Whether to copy `*.py`.
    pub(crate) code: bool,
    /// Whether the child gets this model's tokenizer; its files are found by `tokenizer`.
    pub(crate) tokenizer: bool,
}

impl Selection {
    /// Selects from a model's directory.
    ///
    /// # Errors
    /// [`Kind::NoInput`] where it can't be listed, [`Kind::Data`] for a folder of modules.json that
    /// can't be copied.
    pub(crate) fn of(dir: &Path, wanted: Wanted<'_>) -> Result<Selection> {
        let mut selection = Selection::default();
        let mut budget = Budget { files: MOST_FILES, bytes: MOST_BYTES };
        for name in names_in(dir)? {
            let path = dir.join(&name);
            let Some(name) = name.to_str().filter(|name| !name.contains(char::is_control)) else {
                selection.leave(Reason::Odd, &name.to_string_lossy());
                continue;
            };
            if wanted.taken.contains(name) {
                continue;
            }
            if std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
                selection.select_folder(dir, name, wanted, &mut budget);
            } else {
                let small = selection.select_file(&path, name, wanted);
                selection.take(small.into_iter().collect(), name, &mut budget);
            }
        }
        for module in wanted.modules {
            selection.select_module(dir, module, wanted)?;
        }
        selection.copied.sort_by(|a, b| a.name.cmp(&b.name));
        selection.copied.dedup_by(|a, b| a.name == b.name);
        Ok(selection)
    }

    fn leave(&mut self, why: Reason, name: &str) {
        self.left.entry(why).or_default().push(name.to_owned());
    }

    fn take(&mut self, files: Vec<SideFile>, name: &str, budget: &mut Budget) {
        if budget.takes(&files) {
            self.copied.extend(files);
        } else {
            self.leave(Reason::Many, name);
        }
    }

    /// Selects or leaves out a file at the top.
    fn select_file(&mut self, path: &Path, name: &str, wanted: Wanted<'_>) -> Option<SideFile> {
        let role = role(name, true);
        if role == Role::Own || (role == Role::Tokenizer && wanted.tokenizer) {
            return None;
        }
        admit(role, path, name, wanted).map_err(|why| self.leave(why, name)).ok()
    }

    /// Selects or leaves out a folder, as a whole, unless it belongs to a module.
    fn select_folder(&mut self, dir: &Path, name: &str, wanted: Wanted<'_>, budget: &mut Budget) {
        let of_module = |module: &String| module == name || module.starts_with(&format!("{name}/"));
        if (name == TEMPLATES && wanted.tokenizer) || wanted.modules.iter().any(of_module) {
            return;
        }
        if is_left_folder(name) {
            return self
                .leave(if name.starts_with('.') { Reason::Hidden } else { Reason::Folder }, name);
        }
        let found = match walk(dir, name) {
            Ok(Some(found)) => found,
            Ok(None) => return self.leave(Reason::Many, name),
            Err(_) => return self.leave(Reason::Odd, name),
        };
        let (mut files, mut left) = (Vec::new(), Vec::new());
        for (file, path) in found {
            let own = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match admit(role(own, false), &path, &file, wanted) {
                Ok(small) => files.push(small),
                // Another model, or a part of one.
                Err(Reason::Weights | Reason::WeightSettings) => {
                    return self.leave(Reason::Folder, name);
                }
                Err(why @ (Reason::Tokenizer | Reason::Large | Reason::Pointer)) => {
                    return self.leave(why, name);
                }
                Err(why) => left.push((why, file)),
            }
        }
        left.iter().for_each(|(why, file)| self.leave(*why, file));
        self.take(files, name, budget);
    }

    /// Selects the folder of a module with its weights.
    fn select_module(&mut self, dir: &Path, module: &str, wanted: Wanted<'_>) -> Result<()> {
        let path = dir.join(module);
        let refused = |expected: &str, found: &str| {
            Error::new(Kind::Data, "a folder of modules.json can't go along")
                .file(&path)
                .expected(expected, found)
                .with_hint("put a plain copy of it in place, or take its entry out of modules.json")
        };
        match std::fs::symlink_metadata(&path) {
            // A module without settings has no folder.
            Err(_) => return Ok(()),
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(refused("a folder", "a link or a file")),
        }
        let Some(found) = walk(dir, module)? else {
            return Err(refused("at most 10000 files, 8 folders deep", "more"));
        };
        for (name, path) in found {
            let own = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let role = role(own, false);
            let weights = matches!(role, Role::Weights | Role::WeightSettings);
            if !weights && role != Role::Tokenizer && left_out(role, wanted).is_some() {
                continue;
            }
            match std::fs::metadata(&path) {
                Ok(meta) if meta.is_file() => {
                    let small = SideFile { name, path, bytes: meta.len() };
                    if weights { &mut self.module_weights } else { &mut self.copied }.push(small);
                }
                _ => return Err(refused("regular files", "a link to nothing, or a device")),
            }
        }
        Ok(())
    }

    /// What is left out, in one line; `None` where nothing is.
    pub(crate) fn left_behind(&self) -> Option<String> {
        const SHOWN: usize = 3;
        let groups = self.left.iter().map(|(why, names)| {
            let names = listed(names.iter().map(|name| escape(name)), SHOWN);
            format!("{}: {names}", why.words())
        });
        let text = groups.collect::<Vec<_>>().join("; ");
        (!text.is_empty()).then_some(text)
    }
}

/// How much may still be copied of files whose names are on no list.
struct Budget {
    files: usize,
    bytes: u64,
}

impl Budget {
    fn takes(&mut self, files: &[SideFile]) -> bool {
        let bytes = files.iter().map(|file| file.bytes).fold(0, u64::saturating_add);
        let fits = files.len() <= self.files && bytes <= self.bytes;
        if fits {
            self.files -= files.len();
            self.bytes -= bytes;
        }
        fits
    }
}

/// Why files of this role are left out; `None` where small ones are copied.
fn left_out(role: Role, wanted: Wanted<'_>) -> Option<Reason> {
    match role {
        Role::Own | Role::License | Role::Other => None,
        Role::Python => (!wanted.code).then_some(Reason::Code),
        Role::Tokenizer => (!wanted.tokenizer).then_some(Reason::Tokenizer),
        Role::Weights => Some(Reason::Weights),
        Role::WeightSettings => Some(Reason::WeightSettings),
        Role::Record => Some(Reason::Record),
        Role::Document => Some(Reason::Document),
        Role::Program => Some(Reason::Code),
        Role::Hidden => Some(Reason::Hidden),
    }
}

/// The file, if it is to be copied, or why not.
fn admit(
    role: Role,
    path: &Path,
    name: &str,
    wanted: Wanted<'_>,
) -> std::result::Result<SideFile, Reason> {
    if let Some(why) = left_out(role, wanted) {
        return Err(why);
    }
    let bytes = match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => meta.len(),
        _ => return Err(Reason::Odd),
    };
    if bytes > SMALL_BYTES {
        return Err(Reason::Large);
    }
    if check_readable(path).is_err() {
        return Err(Reason::Odd);
    }
    if is_lfs_pointer(path, bytes) {
        return Err(Reason::Pointer);
    }
    if name.ends_with(".json") && names_weights(path) {
        return Err(Reason::WeightSettings);
    }
    Ok(SideFile { name: name.to_owned(), path: path.to_path_buf(), bytes })
}

/// Whether a JSON file is an index of weights, whatever it is called.
fn names_weights(path: &Path) -> bool {
    let needle = b"\"weight_map\"";
    read_bounded(path, SMALL_BYTES)
        .is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
}

/// Names in a directory, sorted.
fn names_in(dir: &Path) -> Result<Vec<std::ffi::OsString>> {
    let failed = |error| Error::from_io(Kind::NoInput, "cannot list directory", dir, error);
    let entries = std::fs::read_dir(dir).map_err(failed)?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names = names.collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
    names.sort();
    Ok(names)
}

/// All files below `folder`, sorted: paths relative to `dir`, and paths on disk. Links to folders
/// are not followed; hidden entries and names with control characters are passed over. `None` where
/// there are too many entries or levels.
fn walk(dir: &Path, folder: &str) -> Result<Option<Vec<(String, PathBuf)>>> {
    let mut found = Vec::new();
    let mut open = vec![(folder.to_owned(), 1)];
    let mut seen = 0;
    while let Some((folder, depth)) = open.pop() {
        if depth > DEEPEST {
            return Ok(None);
        }
        let path = dir.join(&folder);
        let failed = |error| Error::from_io(Kind::NoInput, "cannot list directory", &path, error);
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            seen += 1;
            if seen > MOST_ENTRIES {
                return Ok(None);
            }
            let name = entry.file_name();
            let plain = |name: &&str| !name.starts_with('.') && !name.contains(char::is_control);
            let Some(name) = name.to_str().filter(plain) else { continue };
            let name = format!("{folder}/{name}");
            if entry.file_type().map_err(failed)?.is_dir() {
                if !is_left_folder(&entry.file_name().to_string_lossy()) {
                    open.push((name, depth + 1));
                }
            } else {
                found.push((name, entry.path()));
            }
        }
    }
    found.sort();
    Ok(Some(found))
}

//! Finds downloaded models in the local cache of the Hugging Face Hub by their names. Nothing here
//! uses the network.
//!
//! ```text
//! CACHE/models--ORG--NAME/refs/main               text: the commit that `main` was when downloaded
//!                         snapshots/COMMIT/FILE   a link to ../../blobs/HASH
//!                         blobs/HASH              the bytes
//! ```
//! Source: `huggingface_hub` 0.36, `constants.py` and "Understand caching".

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use crate::checkpoint::files::small_file::read_bounded;
use crate::checkpoint::parent::key::{split_key, with_key};
use crate::error::{Error, Kind, Result};

/// Prefix of a model's directory.
const MODELS: &str = "models--";

/// Characters of a commit that are shown.
const SHORT_COMMIT: usize = 8;

/// Fewest characters by which a commit may be given.
const SHORTEST_COMMIT: usize = 4;

/// Largest file below `refs` that is read, in bytes: a commit has 40.
const MAX_REF_BYTES: u64 = 256;

/// A path in a Hub cache, by the model's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubEntry {
    /// `ORG/NAME`, or `NAME` alone for the oldest models.
    pub repo: String,
    /// The commit, in full.
    pub revision: String,
    /// The cache's directory.
    pub cache: PathBuf,
    /// The path inside the snapshot; empty for the snapshot itself.
    pub inside: PathBuf,
}

impl HubEntry {
    /// Parses a path; `None` where it is not in a Hub cache. Does not look at the disk.
    pub fn of(path: &Path) -> Option<HubEntry> {
        let path = std::path::absolute(path).ok()?;
        let parts: Vec<Component<'_>> = path.components().collect();
        let position = parts.windows(2).rposition(|pair| {
            pair[0].as_os_str().as_encoded_bytes().starts_with(MODELS.as_bytes())
                && pair[1].as_os_str() == "snapshots"
        })?;
        let text = |place: usize| parts.get(place)?.as_os_str().to_str();
        let (org, name) = match text(position)?.strip_prefix(MODELS)?.split_once("--") {
            Some((org, name)) => (format!("{org}/"), name),
            None => (String::new(), text(position)?.strip_prefix(MODELS)?),
        };
        Some(HubEntry {
            repo: format!("{org}{name}"),
            revision: text(position + 2)?.to_owned(),
            cache: parts.get(..position)?.iter().collect(),
            inside: parts.get(position + 3..)?.iter().collect(),
        })
    }

    /// `ORG/NAME@COMMIT` with a short commit, and the path inside where there is one.
    pub fn short(&self) -> String {
        let commit: String = self.revision.chars().take(SHORT_COMMIT).collect();
        let mut text = format!("{}@{commit}", self.repo);
        if !self.inside.as_os_str().is_empty() {
            text.push_str(&format!("/{}", self.inside.to_string_lossy()));
        }
        text
    }
}

/// The cache's directory as `huggingface_hub` finds it: `HF_HUB_CACHE`, `HF_HOME/hub`,
/// `XDG_CACHE_HOME/huggingface/hub`, `~/.cache/huggingface/hub`.
pub fn cache_dir() -> Option<PathBuf> {
    cache_dir_by(&|name| std::env::var_os(name))
}

fn cache_dir_by(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let home = || variable("HOME").map(PathBuf::from);
    let set = |name: &str| {
        let path = PathBuf::from(variable(name).filter(|value| !value.is_empty())?);
        match path.strip_prefix("~") {
            Ok(rest) => Some(home()?.join(rest)),
            Err(_) => Some(path),
        }
    };
    set("HF_HUB_CACHE")
        .or_else(|| set("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| set("HF_HOME").map(|dir| dir.join("hub")))
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("huggingface/hub")))
        .or_else(|| home().map(|dir| dir.join(".cache/huggingface/hub")))
}

/// The path of a model that a user names: a path that exists, else `ORG/NAME` or
/// `ORG/NAME@REVISION` in the local Hub cache, where the revision is a branch or tag that was
/// downloaded, or a commit, which may be abbreviated. What can't be a model's name is returned
/// unchanged, and so is the key of `FILE::KEY`.
///
/// # Errors
/// [`Kind::NoInput`] where it is neither.
pub fn locate(model: &Path) -> Result<PathBuf> {
    let (file, key) = file_and_key(model);
    Ok(with_key(locate_in(&file, cache_dir().as_deref())?, key.as_deref()))
}

/// Splits `FILE::KEY` into path and key. An existing file whose name holds `::` is a path.
pub(crate) fn file_and_key(model: &Path) -> (PathBuf, Option<String>) {
    split_key(model, |name| parse(name).is_some())
}

/// The path of a parent without its key.
pub fn file_of(model: &Path) -> PathBuf {
    file_and_key(model).0
}

fn locate_in(model: &Path, cache: Option<&Path>) -> Result<PathBuf> {
    let there = std::fs::symlink_metadata(model).is_ok();
    let Some((repo, revision)) = model.to_str().filter(|_| !there).and_then(parse) else {
        return Ok(model.to_path_buf());
    };
    let missing = |expected: String, found: String| {
        Error::new(Kind::NoInput, "no such path, and not in the local Hub cache")
            .file(model)
            .expected(expected, found)
    };
    let folder = format!("{MODELS}{}", repo.replace('/', "--"));
    let known = cache.map(|cache| cache.join(&folder)).filter(|dir| dir.is_dir());
    let Some(dir) = known else {
        let place = cache.map_or("a cache".to_owned(), |cache| format!("`{}`", cache.display()));
        return Err(missing(String::new(), format!("no `{folder}` in {place}")).with_hint(
            "check the path; a model of the Hub must have been downloaded before, as with \
             `hf download ORG/NAME`",
        ));
    };
    let snapshots = snapshots(&dir);
    let wanted = commit(&dir, revision, &snapshots);
    match wanted.filter(|commit| snapshots.contains(commit)) {
        Some(commit) => Ok(dir.join("snapshots").join(commit)),
        None => {
            let have: Vec<String> =
                snapshots.iter().map(|name| name.chars().take(SHORT_COMMIT).collect()).collect();
            let have = if have.is_empty() { "none".to_owned() } else { have.join(", ") };
            let hint = "name one of these as ORG/NAME@REVISION, or download the one that you mean";
            let expected =
                format!("revision {} in `{}`", revision.unwrap_or("main"), dir.display());
            Err(missing(expected, have).with_hint(hint))
        }
    }
}

/// `ORG/NAME`, `NAME`, either with `@REVISION`.
fn parse(text: &str) -> Option<(&str, Option<&str>)> {
    let (repo, revision) = match text.split_once('@') {
        Some((repo, revision)) => (repo, Some(revision)),
        None => (text, None),
    };
    let word = |part: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        !part.is_empty()
            && part.bytes().all(known)
            && !part.starts_with(['-', '.'])
            && !part.ends_with(['-', '.'])
            && !part.contains("--")
            && !part.contains("..")
    };
    let named = repo.split('/').count() <= 2 && repo.split('/').all(word);
    let plain = |path: &str| {
        !path.is_empty()
            && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
    };
    (named && revision.is_none_or(plain)).then_some((repo, revision))
}

/// Commits in the cache, sorted.
fn snapshots(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("snapshots")).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The commit that a revision stands for; it need not be in the cache.
fn commit(dir: &Path, revision: Option<&str>, snapshots: &[String]) -> Option<String> {
    let reference = read_bounded(&dir.join("refs").join(revision.unwrap_or("main")), MAX_REF_BYTES);
    if let Ok(text) = reference.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()) {
        return Some(text);
    }
    let meant = |name: &&String| match revision {
        Some(revision) if revision.len() >= SHORTEST_COMMIT => name.starts_with(revision),
        Some(revision) => *name == revision,
        None => true,
    };
    let mut found = snapshots.iter().filter(meant);
    // An ambiguous commit counts as none.
    let first = found.next().cloned();
    first.filter(|_| found.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    const OTHER: &str = "01234fff89abcdef0123456789abcdef01234567";

    /// A cache with one model in two revisions, of which the first is `main`.
    fn cache() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("models--org--name");
        for commit in [COMMIT, OTHER] {
            std::fs::create_dir_all(model.join("snapshots").join(commit)).unwrap();
        }
        std::fs::create_dir_all(model.join("refs/refs/pr")).unwrap();
        std::fs::write(model.join("refs/main"), COMMIT).unwrap();
        std::fs::write(model.join("refs/refs/pr/1"), OTHER).unwrap();
        std::fs::create_dir_all(dir.path().join("models--gpt2/snapshots/abc")).unwrap();
        dir
    }

    #[track_caller]
    fn found(cache: &Path, name: &str) -> String {
        let path = locate_in(Path::new(name), Some(cache)).unwrap();
        path.file_name().unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn a_name_leads_to_main_and_a_revision_to_its_commit() {
        let cache = cache();
        assert_eq!(found(cache.path(), "org/name"), COMMIT);
        assert_eq!(found(cache.path(), "org/name@main"), COMMIT);
        assert_eq!(found(cache.path(), "org/name@refs/pr/1"), OTHER);
        assert_eq!(found(cache.path(), &format!("org/name@{OTHER}")), OTHER);
        assert_eq!(found(cache.path(), "org/name@01234567"), COMMIT);
        assert_eq!(found(cache.path(), "gpt2"), "abc");
    }

    #[test]
    fn what_is_not_in_the_cache_is_missed_with_what_is_there() {
        let cache = cache();
        for name in ["org/other", "org/name@0123", "org/name@v2", "name"] {
            let error = locate_in(Path::new(name), Some(cache.path())).unwrap_err();
            assert_eq!(error.kind(), Kind::NoInput, "{name}");
            assert!(error.to_string().starts_with("no such path, and not in"), "{error}");
        }
        let error = locate_in(Path::new("org/name@v2"), Some(cache.path())).unwrap_err();
        assert!(error.to_string().ends_with("found 01234567, 01234fff"), "{error}");
    }

    #[test]
    fn a_path_that_is_there_wins_and_no_name_leads_out_of_the_cache() {
        let cache = cache();
        let there = cache.path().join("models--gpt2");
        assert_eq!(locate_in(&there, Some(cache.path())).unwrap(), there);
        for text in ["../name", "a/../b", "a/b/c", "./a/b", "a/b@../../x", "a/b@/etc", "/a", "a--b"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
        // A reference that names a place outside leads nowhere.
        std::fs::write(cache.path().join("models--org--name/refs/main"), "../../..").unwrap();
        assert!(locate_in(Path::new("org/name"), Some(cache.path())).is_err());
    }

    #[test]
    fn a_path_in_a_cache_is_known_by_repo_and_revision() {
        let entry = HubEntry::of(Path::new("/c/hub/models--org--na-me/snapshots/0123456789/x.bin"));
        let entry = entry.unwrap();
        assert_eq!((entry.repo.as_str(), entry.revision.as_str()), ("org/na-me", "0123456789"));
        assert_eq!(entry.short(), "org/na-me@01234567/x.bin");
        assert_eq!(entry.cache, Path::new("/c/hub"));
        let old = HubEntry::of(Path::new("/c/models--gpt2/snapshots/abc")).unwrap();
        assert_eq!(old.short(), "gpt2@abc");
        assert_eq!(HubEntry::of(Path::new("/c/models--gpt2/blobs/abc")), None);
        assert_eq!(HubEntry::of(Path::new("/c/models--gpt2/snapshots")), None);
    }

    #[test]
    fn the_cache_is_where_huggingface_hub_looks() {
        let by = |variables: &[(&str, &str)]| {
            let find = |name: &str| {
                variables.iter().find(|variable| variable.0 == name).map(|v| OsString::from(v.1))
            };
            cache_dir_by(&find).unwrap_or_default()
        };
        let home = ("HOME", "/h");
        assert_eq!(by(&[home]), Path::new("/h/.cache/huggingface/hub"));
        assert_eq!(by(&[home, ("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(
            by(&[home, ("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/x")]),
            Path::new("/h/hf/hub")
        );
        assert_eq!(by(&[home, ("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]), Path::new("/c"));
        assert_eq!(by(&[home, ("HF_HUB_CACHE", "")]), Path::new("/h/.cache/huggingface/hub"));
        assert_eq!(by(&[]), Path::new(""));
    }
}

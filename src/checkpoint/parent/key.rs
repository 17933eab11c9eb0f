//! Parses `FILE::KEY`, which names one of several state dicts in a file.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Separates a file from the key of its state dict.
const SEPARATOR: &str = "::";

/// Splits `FILE::KEY` into path and key. A path that exists has no key, whatever its name. Else the
/// path is the longest part before a `::` that exists, or, where `named` says that it may be a
/// model's name, the part before the first `::`. The key is text; it may be empty (the top level of
/// the file) and may hold `::` itself.
pub(super) fn split_key(model: &Path, named: impl Fn(&str) -> bool) -> (PathBuf, Option<String>) {
    let there = |path: &Path| std::fs::symlink_metadata(path).is_ok();
    let bytes = model.as_os_str().as_bytes();
    let parts = |at: usize| {
        let key = std::str::from_utf8(bytes.get(at.checked_add(SEPARATOR.len())?..)?).ok()?;
        Some((PathBuf::from(OsStr::from_bytes(bytes.get(..at)?)), key.to_owned()))
    };
    let places = bytes.windows(SEPARATOR.len()).enumerate();
    let places = places.filter(|(_, window)| *window == SEPARATOR.as_bytes());
    let splits: Vec<(PathBuf, String)> = places.filter_map(|(at, _)| parts(at)).collect();
    if splits.is_empty() || there(model) {
        return (model.to_path_buf(), None);
    }
    let on_disk = splits.iter().rev().find(|split| there(&split.0));
    let of_hub = || splits.first().filter(|split| split.0.to_str().is_some_and(&named));
    match on_disk.or_else(of_hub) {
        Some((path, key)) => (path.clone(), Some(key.clone())),
        None => (model.to_path_buf(), None),
    }
}

/// Joins a path and its key to `FILE::KEY`.
pub(super) fn with_key(path: PathBuf, key: Option<&str>) -> PathBuf {
    let Some(key) = key else { return path };
    let mut named = path.into_os_string();
    named.push(SEPARATOR);
    named.push(key);
    PathBuf::from(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_there_has_no_key_and_else_the_longest_that_is_is_the_path() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["a.pt", "b::c.pt", "b", "weird::x"] {
            std::fs::write(dir.path().join(name), b"x").expect("written");
        }
        let split = |text: &str| {
            let (path, key) = split_key(&dir.path().join(text), |name| name == "ORG/NAME");
            let name =
                path.strip_prefix(dir.path()).map(|path| path.to_string_lossy().into_owned());
            (name.unwrap_or_default(), key)
        };
        let keyed = |path: &str, key: &str| (path.to_owned(), Some(key.to_owned()));
        let plain = |path: &str| (path.to_owned(), None);
        assert_eq!(split("a.pt"), plain("a.pt"));
        assert_eq!(split("a.pt::model"), keyed("a.pt", "model"));
        assert_eq!(split("a.pt::a/b::c.d"), keyed("a.pt", "a/b::c.d"));
        assert_eq!(split("a.pt::"), keyed("a.pt", ""));
        assert_eq!(split("b::c.pt"), plain("b::c.pt"));
        assert_eq!(split("b::c.pt::model"), keyed("b::c.pt", "model"));
        assert_eq!(split("b::c"), keyed("b", "c"));
        assert_eq!(split("absent.pt::model"), plain("absent.pt::model"));
        let hub = split_key(Path::new("ORG/NAME::model"), |name| name == "ORG/NAME");
        assert_eq!(hub, (PathBuf::from("ORG/NAME"), Some("model".to_owned())));
        assert_eq!(with_key("a".into(), Some("b")), Path::new("a::b"));
    }
}

//! Takes paths apart, and makes them absolute and free of links.

use std::path::{Component, Path, PathBuf};

/// The directory that holds `path`; `.` for a bare name.
pub(crate) fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// The last part of a path, as text.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The absolute path without `.` and `..`; links are resolved as far as the path exists.
pub fn resolved(path: &Path) -> PathBuf {
    let mut rest = Vec::new();
    let mut current = path.to_path_buf();
    loop {
        if let Ok(real) = current.canonicalize() {
            return rest.iter().rev().fold(real, |path, name| path.join(name));
        }
        match current.components().next_back() {
            Some(Component::Normal(name)) => rest.push(name.to_os_string()),
            Some(Component::ParentDir) => rest.push("..".into()),
            _ => {}
        }
        let parent = parent_of(&current);
        if parent == current {
            return path.to_path_buf();
        }
        current = parent;
    }
}

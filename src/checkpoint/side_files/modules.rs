//! Reads sentence-transformers' modules.json: the folders of the modules that follow the model.

use std::path::{Component, Path};

use serde_json::Value;

use crate::checkpoint::files::small_file::{is_present, read_bounded};
use crate::error::{Error, Kind, Result};
use crate::tensor::escape;

/// The file's name.
const FILE: &str = "modules.json";

/// Largest modules.json that is read.
const LIMIT_BYTES: u64 = 1 << 20;

/// The folders that modules.json names, relative to `directory`, except the model's own; none where
/// there is no such file.
///
/// # Errors
/// [`Kind::Data`] for one that is no list of modules, or that names a folder outside.
pub(crate) fn module_folders(directory: &Path) -> Result<Vec<String>> {
    let path = directory.join(FILE);
    if !is_present(&path)? {
        return Ok(Vec::new());
    }
    let bytes = read_bounded(&path, LIMIT_BYTES)?;
    let refused = |expected: &str, found: String| {
        Error::new(Kind::Data, "modules.json is not usable")
            .file(&path)
            .expected(expected, found)
            .with_hint("mend that file, or move it out of the model's directory")
    };
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| refused("sentence-transformers' list of modules", error.to_string()))?;
    let Some(modules) = value.as_array() else {
        return Err(refused("sentence-transformers' list of modules", "another value".to_owned()));
    };
    let mut folders = Vec::new();
    for module in modules {
        let Some(folder) = module.get("path").and_then(Value::as_str) else {
            return Err(refused("a path for each module", "a module without one".to_owned()));
        };
        let folder = folder.trim_end_matches('/');
        if folder.is_empty() || folder == "." {
            continue;
        }
        if !is_inside(folder) {
            let found = format!("`{}`", escape(folder));
            return Err(refused("folders of the model's directory", found));
        }
        folders.push(folder.to_owned());
    }
    folders.sort();
    folders.dedup();
    Ok(folders)
}

/// Whether a path consists of plain, visible names.
fn is_inside(path: &str) -> bool {
    let plain = |part: Component<'_>| match part {
        Component::Normal(name) => name
            .to_str()
            .is_some_and(|name| !name.starts_with('.') && !name.contains(char::is_control)),
        _ => false,
    };
    Path::new(path).components().all(plain) && !path.contains('\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_those_that_the_list_names() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(module_folders(dir.path()).expect("none"), Vec::<String>::new());
        let write = |text: &str| std::fs::write(dir.path().join(FILE), text).expect("written");
        write(r#"[{"idx": 0, "path": ""}, {"path": "2_Normalize"}, {"path": "1_Pooling"}]"#);
        assert_eq!(module_folders(dir.path()).expect("read"), ["1_Pooling", "2_Normalize"]);
        for text in [
            "{}",
            "[",
            "[{}]",
            r#"[{"path": "../x"}]"#,
            r#"[{"path": "/etc"}]"#,
            r#"[{"path": "a/../../b"}]"#,
            r#"[{"path": ".git"}]"#,
            r#"[{"path": "a\\b"}]"#,
        ] {
            write(text);
            assert_eq!(module_folders(dir.path()).expect_err(text).kind(), Kind::Data);
        }
    }
}

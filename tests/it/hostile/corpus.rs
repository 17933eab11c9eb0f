//! The corpus of `tests/data/hostile`: its manifest, and cases made from their recipes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::build::Dict;
use crate::support::fixture;

/// What a payload would touch.
pub(crate) const CANARY: &str = "hostile-canary";

/// How a case must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Expect {
    /// Read, and merged.
    Ok,
    /// Refused when it is opened.
    Refused,
    /// Opened, and refused by the plan of a merge.
    Merge,
    /// Opened, and refused when its bytes are read: by verify and by merge.
    Data,
}

/// One case of the manifest, as `scripts/make_hostile.py` writes it.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// Row of docs/reliability.md.
    pub(crate) row: String,
    pub(crate) what: String,
    /// Recipes by file name.
    files: BTreeMap<String, Value>,
    /// What to open: one of the files; empty for the directory.
    model: String,
    pub(crate) expect: Expect,
    /// Exit code.
    pub(crate) code: u8,
    /// The broken rule of the format, where it is one.
    pub(crate) rule: Option<String>,
    /// A phrase of the message.
    #[serde(default)]
    pub(crate) says: String,
}

impl Case {
    /// Makes the case in a directory of its name below `target`, and returns the path to open.
    pub(crate) fn make(&self, target: &Path) -> PathBuf {
        let directory = target.join(&self.name);
        fs::create_dir(&directory).unwrap();
        for (name, recipe) in &self.files {
            make(&directory.join(name), recipe);
        }
        if self.model.is_empty() { directory } else { directory.join(&self.model) }
    }

    /// Whether it takes long to make: `scripts/hostile.sh` makes it.
    fn is_large(&self) -> bool {
        let words = ["repeat", "entries", "names", "mentions"];
        let large = |recipe: &Value| words.iter().any(|word| recipe.get(word).is_some());
        self.files.values().any(large)
    }

    /// Whether it is kept as one file.
    pub(crate) fn is_kept(&self) -> bool {
        self.files.values().all(|recipe| recipe.get("file").is_some())
    }
}

/// All cases but the large ones.
pub(crate) fn cases() -> Vec<Case> {
    let manifest = fs::read(fixture("hostile/manifest.json")).unwrap();
    let mut cases: Vec<Case> = serde_json::from_slice(&manifest).unwrap();
    cases.retain(|case| !case.is_large());
    cases
}

/// Carries out one recipe (scripts/hostile/models.py and large.py).
fn make(path: &Path, recipe: &Value) {
    let word = |key: &str| recipe.get(key).and_then(Value::as_str);
    let number = |key: &str| recipe.get(key).and_then(Value::as_u64);
    let bytes = || word("hex").map(unhex).unwrap_or_default();
    if let Some(file) = word("file") {
        fs::copy(fixture("hostile").join(file), path).unwrap();
    } else if let Some(case) = word("case") {
        fs::copy(fixture("hostile/files").join(case), path).unwrap();
    } else if let Some(text) = word("text") {
        fs::write(path, text).unwrap();
    } else if let Some(name) = word("good") {
        Dict::new().f32(name, &[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).file(path);
    } else if let Some(target) = word("link") {
        std::os::unix::fs::symlink(target, path).unwrap();
    } else if let Some(length) = number("sparse") {
        let mut file = File::create(path).unwrap();
        file.write_all(&bytes()).unwrap();
        file.set_len(length).unwrap();
    } else if recipe.get("fifo").is_some() {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
    } else if recipe.get("socket").is_some() {
        UnixListener::bind(path).unwrap();
    } else if recipe.get("dir").is_some() {
        fs::create_dir(path).unwrap();
    } else if word("hex").is_some() {
        fs::write(path, bytes()).unwrap();
    } else {
        panic!("no recipe: {recipe}");
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(pair).collect()
}

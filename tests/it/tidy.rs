//! House rules that no compiler checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::imports::{Imports, between_rooms, circles, imports};

/// Modules with their floor, lowest first: a floor may use those below it. `report` and `batch`
/// have a place before they have code.
const FLOORS: [(&str, usize); 10] = [
    ("tensor", 0),
    ("error", 0),
    ("format", 1),
    ("checkpoint", 2),
    ("merge", 3),
    ("engine", 4),
    ("report", 5),
    ("recipe", 5),
    ("batch", 6),
    ("cli", 7),
];

/// The crate's error wraps the refusals of the format floor: (file, module) that may look up.
const LOOKS_UP: (&str, &str) = ("src/error.rs", "format");

/// Lines that a file may have, tests included.
const MOST_LINES: usize = 400;

/// Files of Rust that a folder may have side by side: more can't be scanned in a minute.
const MOST_FILES: usize = 14;

/// A source file: path from the repository's root, text, and text without comments.
struct Source {
    path: String,
    text: String,
    code: String,
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = walkdir::WalkDir::new(root.join(folder)).into_iter().map(|entry| entry.unwrap());
    let paths: Vec<PathBuf> = entries
        .map(walkdir::DirEntry::into_path)
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    let sources: Vec<Source> = paths
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).unwrap();
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let code = code.collect::<Vec<_>>().join("\n");
            let path = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            Source { path, text, code }
        })
        .collect();
    assert!(sources.len() > 5, "{folder}");
    sources
}

impl Source {
    /// The module of `src` that the file belongs to; `None` for lib.rs and main.rs.
    fn module(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("src/")?;
        let module = rest.split('/').next()?.trim_end_matches(".rs");
        FLOORS.iter().map(|floor| floor.0).find(|name| *name == module)
    }

    /// Whether `word` stands in the code, not as the end of another word.
    fn names(&self, word: &str) -> bool {
        self.code.match_indices(word).any(|(place, _)| {
            let before = self.code[..place].chars().next_back();
            !before.is_some_and(|character| character.is_alphanumeric() || character == '_')
        })
    }
}

fn floor(module: &str) -> usize {
    FLOORS.iter().find(|floor| floor.0 == module).map_or(usize::MAX, |floor| floor.1)
}

#[test]
fn a_floor_uses_only_floors_below_it() {
    for source in sources("src") {
        let Some(module) = source.module() else { continue };
        for part in source.code.split("crate::").skip(1) {
            let used = part.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            let known = FLOORS.iter().any(|floor| floor.0 == used);
            let allowed = floor(used) < floor(module)
                || used == module
                || (floor(used) == 0 && floor(module) == 0)
                || (source.path.as_str(), used) == LOOKS_UP;
            assert!(!known || allowed, "{}: {module} uses {used}", source.path);
        }
    }
}

fn of_src() -> Imports {
    imports(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

#[test]
fn imports_go_down_the_floors() {
    let imports = of_src();
    let count: usize = imports.values().map(BTreeSet::len).sum();
    assert!(count > 500, "only {count} imports were found");
    for (module, used) in &imports {
        let Some(own) = module.first() else { continue };
        for used in used {
            let looks_up = (format!("src/{}.rs", module.join("/")), used[0].as_str());
            let allowed = floor(&used[0]) < floor(own)
                || used[0] == *own
                || (floor(&used[0]) == 0 && floor(own) == 0)
                || (looks_up.0.as_str(), looks_up.1) == LOOKS_UP;
            assert!(allowed, "{} uses {}", module.join("::"), used.join("::"));
        }
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let circles = circles(&of_src());
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn no_rooms_import_each_other_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let entries = walkdir::WalkDir::new(&root).into_iter().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.file_type().is_dir()).map(|entry| {
        let path = entry.path().strip_prefix(&root).unwrap();
        path.iter().map(|part| part.to_str().unwrap().to_owned()).collect()
    });
    let circles = circles(&between_rooms(&of_src(), &folders.collect()));
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn a_folder_can_be_scanned() {
    let mut folders: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for source in sources("src") {
        *folders.entry(Path::new(&source.path).parent().unwrap().to_owned()).or_default() += 1;
    }
    for (folder, files) in folders {
        assert!(files <= MOST_FILES, "{} has {files} files", folder.display());
    }
}

#[test]
fn every_module_has_a_floor() {
    for source in sources("src") {
        let outside = ["src/lib.rs", "src/main.rs"].contains(&source.path.as_str());
        assert!(outside || source.module().is_some(), "{} has no floor", source.path);
    }
}

#[test]
fn only_the_engine_names_torch() {
    for source in sources("src") {
        let engine = source.module() == Some("engine");
        assert!(engine || !source.names("tch::"), "{} names tch", source.path);
        assert!(!source.names("torch_sys::"), "{} names torch_sys", source.path);
    }
}

#[test]
fn unsafe_code_lives_behind_its_fences() {
    for source in sources("src") {
        // CUDA is opened in a file of that name, when there is one.
        let fence = source.path == "src/engine/torch/buffer.rs"
            || source.path.starts_with("src/engine/cuda");
        let found = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "(unsafe_code"]
            .iter()
            .any(|word| source.names(word) || source.code.contains("(unsafe_code"));
        assert!(fence || !found, "{} has unsafe code", source.path);
    }
}

#[test]
fn only_one_file_prints() {
    let macros = ["print!", "println!", "eprint!", "eprintln!", "dbg!"];
    for source in sources("src") {
        let prints = macros.iter().any(|name| source.names(name));
        assert!(source.path == "src/cli/print.rs" || !prints, "{} prints", source.path);
    }
}

#[test]
fn every_file_says_first_what_it_is_and_is_short() {
    for source in sources("src").iter().chain(&sources("tests/it")) {
        assert!(source.text.starts_with("//! "), "{} does not say what it is", source.path);
        let lines = source.text.lines().count();
        assert!(lines <= MOST_LINES, "{} has {lines} lines", source.path);
    }
}

#[test]
fn every_module_of_the_tests_is_told_in_one_line() {
    let main = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/main.rs"));
    let main = main.unwrap();
    let lines: Vec<&str> = main.lines().collect();
    for pair in lines.windows(2) {
        assert!(!pair[1].starts_with("mod ") || pair[0].starts_with("/// "), "{}", pair[1]);
    }
}

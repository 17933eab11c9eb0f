//! Finds `libtorch_cuda.so`, and checks that it is the other half of the libtorch that is loaded.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::engine::cuda::errors::unavailable;
use crate::error::{Error, Result};

/// The libtorch that `tch` is made for.
const TORCH_VERSION: &str = "2.11.0";

/// How the versions begin that differ from it in mended faults alone; the wheel takes any of them.
const TORCH_RELEASE: &str = "2.11.";

/// Blocks of `libtorch_cpu.so` that are compared, and their size in bytes.
const SAMPLES: u64 = 64;
const SAMPLE_BYTES: usize = 4096;

/// The libtorch of this process.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// `libtorch_cpu.so`, links resolved.
    pub(crate) cpu: PathBuf,
    /// Its version, where a file beside it tells.
    pub(crate) version: Option<String>,
}

/// What is looked for, and where.
#[derive(Debug)]
pub(crate) struct Search {
    pub(crate) loaded: PathBuf,
    pub(crate) places: Places,
}

/// Directories that may hold `libtorch_cuda.so`, in the order in which they are tried.
pub(crate) type Places = Vec<PathBuf>;

impl Search {
    /// Beside the loaded libtorch, below LIBTORCH, in the PyTorch installations of this machine.
    ///
    /// The loaded libtorch is known with links resolved. Where an environment is made of links to a
    /// store (`uv` with `--link-mode symlink`), what CUDA needs is not beside it there: so the places
    /// where this program found it come, too.
    pub(crate) fn of_environment(loaded: &Loaded) -> Search {
        let mut places = Places::new();
        if let Some(lib) = loaded.cpu.parent() {
            places.push(lib.to_path_buf());
            // As scripts/libtorch.sh --cuda lays it out.
            places.push(lib.join("../cuda/torch/lib"));
        }
        if let Some(root) = std::env::var_os("LIBTORCH").map(PathBuf::from) {
            places.push(root.join("lib"));
            places.push(root.join("cuda/torch/lib"));
        }
        let program = std::env::current_exe().unwrap_or_default();
        // Where the program's run path finds libtorch.
        for above in program.ancestors().skip(1).take(4) {
            places.push(above.join("libtorch/lib"));
            places.push(above.join("libtorch/cuda/torch/lib"));
        }
        // `python -m llm_slerp_merge` leads the loader to the PyTorch that Python imports.
        if let Some(paths) = std::env::var_os("LD_LIBRARY_PATH") {
            places.extend(std::env::split_paths(&paths));
        }
        let own_environment = program.ancestors().nth(2).map(Path::to_path_buf);
        for prefix in own_environment.into_iter().chain(python_prefixes()) {
            places.extend(torch_below(&prefix));
        }
        Search { loaded: loaded.cpu.clone(), places }
    }
}

/// The `libtorch_cpu.so` that the system has mapped into this process.
pub(crate) fn loaded() -> Option<Loaded> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps.lines().find_map(|line| {
        let path = line.get(line.find('/')?..)?;
        path.ends_with("/libtorch_cpu.so").then(|| PathBuf::from(path))
    })?;
    let version = path.parent().and_then(version_of);
    Some(Loaded { cpu: path, version })
}

/// The version of the PyTorch or libtorch whose libraries are in `lib`.
fn version_of(lib: &Path) -> Option<String> {
    let root = lib.parent()?;
    if let Ok(text) = fs::read_to_string(root.join("version.py")) {
        let line = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
        return Some(line.trim_matches(['\'', '"', ' ']).to_owned());
    }
    let text = fs::read_to_string(root.join("build-version")).ok()?;
    Some(text.trim().to_owned())
}

/// Directories below which Python's packages are.
fn python_prefixes() -> Vec<PathBuf> {
    let variables = ["VIRTUAL_ENV", "CONDA_PREFIX"];
    let mut prefixes: Vec<PathBuf> =
        variables.into_iter().filter_map(std::env::var_os).map(PathBuf::from).collect();
    if let Some(path) = std::env::var_os("PATH") {
        let has_python = std::env::split_paths(&path).filter(|bin| bin.join("python3").exists());
        prefixes.extend(has_python.filter_map(|bin| Some(bin.parent()?.to_path_buf())));
    }
    if let Some(home) = std::env::var_os("HOME").map(PathBuf::from) {
        prefixes.push(home.join(".local"));
        prefixes.extend(["miniconda3", "anaconda3", "miniforge3"].map(|name| home.join(name)));
    }
    prefixes.extend(["/usr", "/usr/local"].map(PathBuf::from));
    prefixes.extend(entries(Path::new("/opt")));
    prefixes
}

/// `lib` directories of the PyTorch installations below a Python prefix.
fn torch_below(prefix: &Path) -> Vec<PathBuf> {
    let pythons = entries(&prefix.join("lib")).into_iter().filter(|path| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"python3"))
    });
    pythons
        .flat_map(|python| {
            ["site-packages", "dist-packages"].map(|name| python.join(name).join("torch/lib"))
        })
        .filter(|lib| lib.is_dir())
        .collect()
}

/// What lies in a directory, sorted; nothing where it can't be read.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Every `libtorch_cuda.so` that belongs to the loaded libtorch, the first to be tried first; never
/// none.
///
/// # Errors
/// [`crate::error::Kind::Device`]: there is none, or only of another version or build.
pub(crate) fn search(search: &Search) -> Result<Vec<PathBuf>> {
    let (mut found, mut refusal) = (Vec::new(), None);
    for place in &search.places {
        let library = place.join("libtorch_cuda.so");
        if !library.exists() || found.contains(&library) {
            continue;
        }
        match check(place, &search.loaded) {
            Ok(()) => found.push(library),
            Err(error) => {
                refusal.get_or_insert(error.file(&library));
            }
        }
    }
    if !found.is_empty() {
        return Ok(found);
    }
    let advice = format!(
        "`scripts/libtorch.sh --cuda` fetches it, `--system` takes it from a PyTorch {TORCH_VERSION} \
         with CUDA"
    );
    Err(refusal.unwrap_or_else(|| unavailable("libtorch_cuda.so is missing")).with_hint(advice))
}

/// Whether the libraries in `place` are of the loaded libtorch's version and build: the two halves
/// call each other by private names, and another build's would crash or compute wrongly.
fn check(place: &Path, loaded: &Path) -> std::result::Result<(), Error> {
    let version = version_of(place);
    let number = version.as_deref().map(|version| version.split('+').next().unwrap_or_default());
    if number.is_some_and(|number| !number.starts_with(TORCH_RELEASE)) {
        return Err(unavailable("libtorch_cuda.so is of another version")
            .expected(TORCH_VERSION, version.unwrap_or_default()));
    }
    match same_library(&place.join("libtorch_cpu.so"), loaded) {
        Ok(true) => Ok(()),
        Ok(false) => Err(unavailable("libtorch_cuda.so is of another build")
            .expected("the build of the libtorch that is loaded", "another beside it")),
        Err(error) => {
            Err(unavailable("libtorch_cuda.so has no readable libtorch_cpu.so beside it")
                .expected("", error.to_string()))
        }
    }
}

/// Whether two libraries are the same file, or of one size and equal in every sampled block.
fn same_library(a: &Path, b: &Path) -> io::Result<bool> {
    let (a, b) = (File::open(a)?, File::open(b)?);
    let (of_a, of_b) = (a.metadata()?, b.metadata()?);
    if (of_a.dev(), of_a.ino()) == (of_b.dev(), of_b.ino()) {
        return Ok(true);
    }
    if of_a.len() != of_b.len() {
        return Ok(false);
    }
    let last = of_a.len().saturating_sub(SAMPLE_BYTES as u64);
    let length = usize::try_from(of_a.len()).unwrap_or(SAMPLE_BYTES).min(SAMPLE_BYTES);
    let (mut left, mut right) = (vec![0; length], vec![0; length]);
    for sample in 0..=SAMPLES {
        let offset = last.saturating_mul(sample) / SAMPLES;
        a.read_exact_at(&mut left, offset)?;
        b.read_exact_at(&mut right, offset)?;
        if left != right {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory like PyTorch's, with these contents for libtorch_cpu.so; returns its lib.
    fn torch(root: &Path, version: &str, cpu: &[u8]) -> PathBuf {
        let lib = root.join("lib");
        fs::create_dir_all(&lib).unwrap();
        fs::write(root.join("version.py"), format!("__version__ = '{version}'\n")).unwrap();
        fs::write(lib.join("libtorch_cpu.so"), cpu).unwrap();
        fs::write(lib.join("libtorch_cuda.so"), b"").unwrap();
        lib
    }

    #[test]
    fn libraries_of_the_loaded_build_are_found_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let build = vec![7; 100_000];
        let mut other_build = build.clone();
        other_build[99_999] = 8;
        let loaded = torch(&dir.path().join("loaded"), "2.11.0", &build).join("libtorch_cpu.so");
        let old = torch(&dir.path().join("old"), "2.10.0", &build);
        let other = torch(&dir.path().join("other"), "2.11.0+cu126", &other_build);
        let copy = torch(&dir.path().join("copy"), "2.11.0+cu130", &build);
        let empty = dir.path().join("empty");
        let find = |places: &[&PathBuf]| {
            let places = places.iter().map(|place| (*place).clone()).collect();
            search(&Search { loaded: loaded.clone(), places })
        };
        let beside = loaded.with_file_name("libtorch_cuda.so");
        let lib = beside.parent().unwrap().to_path_buf();
        let found = find(&[&empty, &old, &copy, &lib, &copy]).unwrap();
        assert_eq!(found, [copy.join("libtorch_cuda.so"), beside]);
        let mended = torch(&dir.path().join("mended"), "2.11.1+cu130", &build);
        assert_eq!(find(&[&mended]).unwrap(), [mended.join("libtorch_cuda.so")]);
        let refusal = find(&[&old, &other]).unwrap_err().to_string();
        assert!(refusal.contains("expected 2.11.0, found 2.10.0"), "{refusal}");
        assert!(refusal.contains("old/lib/libtorch_cuda.so"), "{refusal}");
        let refusal = find(&[&other]).unwrap_err().to_string();
        assert!(refusal.contains("another build"), "{refusal}");
        let refusal = find(&[&empty]).unwrap_err();
        assert_eq!(refusal.to_string(), "CUDA is not available: libtorch_cuda.so is missing");
        assert!(refusal.hint().unwrap().contains("scripts/libtorch.sh --cuda"));
    }

    #[test]
    fn the_loaded_libtorch_is_found_with_its_version() {
        // Using torch makes the linker keep it among this program's libraries.
        let _ = tch::Tensor::from_slice(&[0f32]);
        let loaded = loaded().unwrap();
        assert!(loaded.cpu.is_file());
        assert!(loaded.version.unwrap().starts_with(TORCH_VERSION));
    }

    #[test]
    fn packages_of_every_python_below_a_prefix_are_places() {
        let dir = tempfile::tempdir().unwrap();
        for python in ["python3.11/site-packages", "python3/dist-packages", "perl/site-packages"] {
            fs::create_dir_all(dir.path().join("lib").join(python).join("torch/lib")).unwrap();
        }
        let found = torch_below(dir.path());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].ends_with("python3/dist-packages/torch/lib"));
    }
}

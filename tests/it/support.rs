//! Runs the tool, reads checkpoints, looks at directories.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use llm_slerp_merge::checkpoint::{Checkpoint, Opening};
use llm_slerp_merge::engine::{self, Interrupted, Job, Settings};
use llm_slerp_merge::format::{Encoding, ReadAt, inflate_exact};
use llm_slerp_merge::merge::MergeOptions;
use tch::{Kind, Tensor};

/// A finished run of the tool.
#[derive(Debug)]
pub(crate) struct Run {
    /// Exit code; `None` where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    fn of(output: Output) -> Run {
        Run {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// This run, which must have succeeded.
    #[track_caller]
    pub(crate) fn success(self) -> Run {
        assert_eq!(self.code, Some(0), "stderr: {}", self.stderr);
        self
    }

    /// What it said on stderr; it must have ended with `code`.
    #[track_caller]
    pub(crate) fn refused(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "stderr: {}", self.stderr);
        self.stderr
    }

    /// Its stdout as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// The tool, not started; the user's RUST_LOG does not reach it.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llm-slerp-merge"));
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs the tool as a user whom modes bind; `None` where that user can't get at the tool itself.
pub(crate) fn run_as_plain_user(command: &mut Command) -> Option<Run> {
    if rustix::process::geteuid().is_root() {
        // Root reads and writes everything: ask as nobody.
        command.uid(65534).gid(65534);
    }
    match command.output() {
        Ok(output) => Some(Run::of(output)),
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{error}");
            None
        }
    }
}

/// Runs the tool to its end.
pub(crate) fn tool<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Run {
    run(command().args(arguments))
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Run {
    Run::of(command.output().unwrap())
}

/// Runs `merge A B -o OUT` with more options, without flushing.
pub(crate) fn merge(a: &Path, b: &Path, out: &Path, options: &[&str]) -> Run {
    let paths = ["merge".as_ref(), a.as_os_str(), b.as_os_str(), "-o".as_ref(), out.as_os_str()];
    let options = options.iter().map(OsStr::new);
    tool(paths.into_iter().chain(options).chain(["--no-fsync".as_ref()]))
}

/// A file or folder of tests/data.
pub(crate) fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

/// A JSON file of tests/data.
pub(crate) fn fixture_json(path: &str) -> serde_json::Value {
    serde_json::from_slice(&fs::read(fixture(path)).unwrap()).unwrap()
}

/// All files below a directory with their bytes, by path from there. Directories count too.
pub(crate) fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(dir).min_depth(1) {
        let entry = entry.unwrap();
        let bytes =
            if entry.file_type().is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
        files.insert(entry.path().strip_prefix(dir).unwrap().to_path_buf(), bytes);
    }
    files
}

/// Names of what lies in a directory, hidden entries too, sorted.
pub(crate) fn listing(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Weight files and index of a model directory, sorted.
pub(crate) fn weight_files(dir: &Path) -> Vec<String> {
    let mut names = listing(dir);
    names.retain(|name| name.contains(".bin"));
    names
}

/// A tensor in memory: kind, shape, bytes of its elements in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Loaded {
    pub(crate) kind: Kind,
    pub(crate) shape: Vec<i64>,
    pub(crate) bytes: Vec<u8>,
}

impl Loaded {
    pub(crate) fn of(tensor: &Tensor) -> Loaded {
        let numel = tensor.numel();
        let mut bytes = vec![0; numel * tensor.kind().elt_size_in_bytes()];
        tensor.contiguous().copy_data_u8(&mut bytes, numel);
        Loaded { kind: tensor.kind(), shape: tensor.size(), bytes }
    }

    /// The elements, exactly.
    pub(crate) fn values(&self) -> Vec<f64> {
        let tensor = Tensor::from_data_size(&self.bytes, &self.shape, self.kind);
        Vec::try_from(tensor.to_kind(Kind::Double).reshape([-1])).unwrap()
    }
}

/// Rows `from..to` of a tensor.
pub(crate) fn rows(tensor: &Loaded, from: i64, to: i64) -> Loaded {
    let row_bytes = tensor.bytes.len() / usize::try_from(tensor.shape[0]).unwrap();
    let [start, end] = [from, to].map(|row| usize::try_from(row).unwrap() * row_bytes);
    let mut shape = tensor.shape.clone();
    shape[0] = to - from;
    Loaded { kind: tensor.kind, shape, bytes: tensor.bytes[start..end].to_vec() }
}

/// The tensors of a weight file in order, read by libtorch's own loader: the oracle for what the
/// tool writes. It reads zips of plain dicts only.
pub(crate) fn torch_file(path: &Path) -> Vec<(String, Loaded)> {
    let tensors = Tensor::loadz_multi(path).unwrap();
    tensors.iter().map(|(name, tensor)| (name.clone(), Loaded::of(tensor))).collect()
}

/// The tensors of a model directory, by [`torch_file`].
pub(crate) fn torch_model(dir: &Path) -> BTreeMap<String, Loaded> {
    let files = weight_files(dir).into_iter().filter(|name| name.ends_with(".bin"));
    files.flat_map(|name| torch_file(&dir.join(name))).collect()
}

/// Names, dtypes and row-major bytes of a checkpoint of any kind, through the library's reader.
/// `inspect.rs` holds this against what torch says.
pub(crate) fn own_reader(path: &Path) -> Vec<(String, String, Vec<u8>)> {
    let checkpoint = Checkpoint::open(path).unwrap();
    let storages: Vec<Vec<u8>> = checkpoint
        .inventory
        .storages
        .iter()
        .map(|storage| {
            let file = &checkpoint.files[storage.file];
            match storage.encoding {
                Encoding::Stored => {
                    let mut bytes = vec![0; usize::try_from(storage.record_bytes).unwrap()];
                    file.read_exact_at(storage.file_offset, &mut bytes).unwrap();
                    bytes
                }
                Encoding::Deflated { compressed_bytes } => {
                    inflate_exact(file, storage.file_offset, compressed_bytes, storage.record_bytes)
                        .unwrap()
                }
            }
        })
        .collect();
    let tensors = checkpoint.inventory.tensors.iter();
    tensors
        .map(|tensor| {
            let item = usize::try_from(tensor.dtype.size_bytes()).unwrap();
            let mut places = vec![tensor.layout.storage_offset];
            for (size, stride) in tensor.layout.shape.iter().zip(&tensor.layout.stride) {
                let steps = 0..*size;
                let along =
                    |place: &u64| steps.clone().map(|i| place + i * stride).collect::<Vec<_>>();
                places = places.iter().flat_map(along).collect();
            }
            let bytes = places.iter().flat_map(|place| {
                let start = usize::try_from(*place).unwrap() * item;
                storages[tensor.storage][start..start + item].to_vec()
            });
            (tensor.name.clone(), tensor.dtype.name().to_owned(), bytes.collect())
        })
        .collect()
}

/// Bytes of every tensor of a parent, by name.
pub(crate) fn parent_bytes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    own_reader(path).into_iter().map(|(name, _, bytes)| (name, bytes)).collect()
}

/// A float32 parent of any container, by name.
pub(crate) fn float32_parent(path: &Path) -> BTreeMap<String, Loaded> {
    let tensor = |(name, dtype, bytes): (String, String, Vec<u8>)| {
        assert_eq!(dtype, "float32");
        let shape = vec![i64::try_from(bytes.len() / 4).unwrap()];
        (name, Loaded { kind: Kind::Float, shape, bytes })
    };
    own_reader(path).into_iter().map(tensor).collect()
}

/// Bytes of every tensor of a child, by name.
pub(crate) fn child_bytes(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    torch_model(dir).into_iter().map(|(name, loaded)| (name, loaded.bytes)).collect()
}

/// Merges in this process, on one thread and without flushing.
pub(crate) fn merge_here(
    primary: &Path,
    secondary: &Path,
    child: &Path,
) -> llm_slerp_merge::Result<()> {
    let job = Job {
        primary: primary.to_path_buf(),
        secondary: secondary.to_path_buf(),
        outputs: vec![child.to_path_buf()],
        options: MergeOptions::default(),
        overwrite: false,
        resume: false,
        fsync: false,
        opening: Opening::default(),
        interrupted: Interrupted::default(),
    };
    let settings = Settings {
        threads: 1,
        memory_bytes: 1 << 20,
        devices: &[],
        device_bytes: None,
        device_sharers: 1,
        interrupted: &|| None,
    };
    engine::run(engine::prepare(job)?, &settings, &(), Instant::now()).map(drop)
}

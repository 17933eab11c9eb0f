//! Lists names that are known to run code, open files or use the network when a pickle calls them:
//! `--opaque` takes none of them.
//!
//! A name that is missing here is not thereby allowed: the reader calls nothing, whatever the name, and
//! refuses every name that it does not know to be data.

/// Modules none of whose names is taken, nor those of their submodules.
const MODULES: &[&str] = &[
    // The system, processes and other programs.
    "os",
    "posix",
    "nt",
    "ntpath",
    "posixpath",
    "sys",
    "subprocess",
    "_posixsubprocess",
    "pty",
    "commands",
    "platform",
    "signal",
    "shutil",
    "multiprocessing",
    "concurrent",
    "threading",
    "_thread",
    "asyncio",
    "sched",
    "webbrowser",
    "antigravity",
    "this",
    "ctypes",
    "_ctypes",
    "_testcapi",
    "_osx_support",
    "_aix_support",
    "_pyrepl",
    "mailcap",
    // Code by its text, its name or its bytes.
    "runpy",
    "code",
    "codeop",
    "importlib",
    "imp",
    "zipimport",
    "pkgutil",
    "marshal",
    "pickle",
    "_pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "pip",
    "ensurepip",
    "venv",
    "distutils",
    "setuptools",
    "lib2to3",
    "idlelib",
    "pydoc",
    "timeit",
    "bdb",
    "pdb",
    "cProfile",
    "profile",
    "trace",
    "doctest",
    "unittest",
    "test",
    "site",
    "linecache",
    "inspect",
    "gc",
    // Calls of other names.
    "operator",
    "_operator",
    "functools",
    "_functools",
    "itertools",
    "contextlib",
    "weakref",
    "atexit",
    "copyreg",
    "copy_reg",
    "dataclasses",
    // Files and the network.
    "io",
    "_io",
    "codecs",
    "tempfile",
    "tarfile",
    "zipfile",
    "fileinput",
    "dbm",
    "sqlite3",
    "netrc",
    "nturl2path",
    "logging",
    "optparse",
    "socket",
    "_socket",
    "http",
    "httplib",
    "urllib",
    "urllib2",
    "ssl",
    "ftplib",
    "smtplib",
    "smtpd",
    "telnetlib",
    "poplib",
    "imaplib",
    "xmlrpc",
    "requests",
    "aiohttp",
    "httpx",
    "paramiko",
    "boto3",
    "huggingface_hub",
    // Python's own functions; those that are data are known without being named.
    "builtins",
    "__builtin__",
    // Libraries of machine learning.
    "torch.utils",
    "torch._inductor",
    "torch.fx",
    "torch._dynamo",
    "torch.jit",
    "torch.hub",
    "torch.serialization",
    "torch.ops",
    "torch.classes",
    "torch._C",
    "torch.package",
    "torch.distributed",
    "torch.multiprocessing",
    "numpy.f2py",
    "numpy.testing",
    "numpy.lib",
    "numpy.distutils",
    "tensorflow",
    "keras",
    "pandas",
    "sklearn",
    "nltk",
    "onnx",
];

/// Further names, each with what lies below it.
const NAMES: &[&str] = &[
    "types.CodeType",
    "types.FunctionType",
    "types.LambdaType",
    "types.MethodType",
    "types.ModuleType",
    "typing.get_type_hints",
    "collections.namedtuple",
    "uuid._popen",
    "uuid._get_command_stdout",
    "torch.load",
    "torch.storage._load_from_bytes",
    "torch._utils._import_dotted_name",
    "numpy.load",
    "numpy.memmap",
    "numpy.fromfile",
];

/// Functions that load or write files, in whatever module or class.
const METHODS: &[&str] = &["from_pretrained", "load", "loads", "open", "write_text", "unlink"];

/// Modules that others import: what lies below them runs code wherever they stand in a name.
const ANYWHERE: [&str; 8] = ["os", "_os", "sys", "_sys", "posix", "nt", "subprocess", "builtins"];

/// Whether `MODULE.NAME` is known to run code when it is called.
pub(crate) fn runs_code(full: &str) -> bool {
    let below = |known: &str| {
        full.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let name = full.rsplit('.').next().unwrap_or(full);
    MODULES.iter().any(|known| below(known))
        || NAMES.iter().any(|known| below(known))
        || METHODS.contains(&name)
        || full.split('.').any(|word| ANYWHERE.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::torch::pickle::names::inert::Inert;

    /// Classes of the hostile corpus that are refused for being unknown; no more is known of them.
    const UNKNOWN: [&str; 11] = [
        "torch._tensor._rebuild_from_type",
        "torch._utils._rebuild_xla_tensor",
        "torch.storage._StorageBase",
        "torch.Storage",
        "torch.FooStorage",
        "torch.nn.modules.container.Sequential",
        "torch.nn.Linear",
        "transformers.utils.hub.cached_file",
        "accelerate.utils.other.load",
        "deepspeed.runtime.engine.DeepSpeedEngine",
        "pytorch_lightning.callbacks.ModelCheckpoint",
    ];

    #[test]
    fn the_names_of_the_hostile_corpus_are_known() {
        let manifest = include_str!("../../../../../tests/data/hostile/manifest.json");
        let cases: Vec<serde_json::Value> = serde_json::from_str(manifest).expect("JSON");
        let mut count = 0;
        for case in &cases {
            let row = case["row"].as_str().unwrap_or_default();
            let says = case["says"].as_str().unwrap_or_default();
            let Some(full) = says.strip_prefix('`').and_then(|says| says.strip_suffix('`')) else {
                continue;
            };
            // Attributes of classes that are data are refused for their dots.
            let dotted = case["name"].as_str().is_some_and(|name| name.contains("-left-dotted-"));
            if dotted || !["P1", "P2", "P3", "P4", "P5", "P9"].contains(&row) {
                continue;
            }
            let (module, name) = full.rsplit_once('.').unwrap_or_default();
            let known = runs_code(full) || Inert::find(module, name).is_some();
            assert!(known || UNKNOWN.contains(&full) || full.contains("__"), "{full}");
            count += 1;
        }
        assert!(count > 250, "{count}");
    }

    #[test]
    fn a_name_is_known_with_what_lies_below_it() {
        for full in
            ["os.system", "os.path.join", "subprocess.Popen", "pathlib.os.system", "a.b.load"]
        {
            assert!(runs_code(full), "{full}");
        }
        for full in ["osprey.Config", "mylib.logging.Meter", "codec.Thing", "__main__.TrainConfig"]
        {
            assert!(!runs_code(full), "{full}");
        }
    }
}

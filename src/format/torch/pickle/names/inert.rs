//! Lists names that torch's list lacks and that are data all the same: what training programs save
//! beside the weights. A value of such a name is kept unread and left out; nothing is imported,
//! nothing called.
//!
//! Each name is read in the forms in which Python's own pickler writes it (protocols 0 to 4, Python 2.7
//! and 3.6 to 3.13), and in no other: a name called otherwise is refused as an unknown one is.

use std::fmt;

/// How picklers make a value of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A type or constant that is only named: `numpy.float32`, `typing.Any`.
    Named,
    /// An object without arguments, whose content follows as its state or its items.
    Object,
    /// A call or a new object with as many arguments: at least, at most.
    Call(u32, u32),
    /// `collections.defaultdict`: no argument, `None` or the name of a type.
    Factory,
    /// `copyreg._reconstructor(class, base, content)`: an object of the class.
    Reconstructor,
}

use Form::{Call, Factory, Named, Object, Reconstructor};

/// Modules that have the same names, the names, and their form.
type Group = (&'static [&'static str], &'static [&'static str], Form);

/// Python 3 writes the modules of Python 2 where the protocol is below 3.
const BUILTINS: &[&str] = &["builtins", "__builtin__"];

/// Sources: what pickletools shows of values that CPython, numpy 1.26 and 2.4, omegaconf 2.4, Lightning
/// 2.6 and transformers 4.57 pickled.
const GROUPS: &[Group] = &[
    (&["argparse"], &["Namespace"], Object),
    (&["types"], &["SimpleNamespace"], Object),
    (
        BUILTINS,
        &[
            "int",
            "long",
            "float",
            "str",
            "unicode",
            "bool",
            "list",
            "tuple",
            "dict",
            "object",
            "Ellipsis",
            "NotImplemented",
        ],
        Named,
    ),
    (BUILTINS, &["bytes", "frozenset"], Call(0, 1)),
    (BUILTINS, &["range", "xrange", "slice"], Call(1, 3)),
    (&["copyreg", "copy_reg"], &["_reconstructor"], Reconstructor),
    (&["collections"], &["defaultdict"], Factory),
    (&["collections"], &["deque"], Call(0, 2)),
    (&["collections"], &["ChainMap", "UserDict", "UserList", "UserString"], Object),
    (&["UserDict"], &["IterableUserDict"], Object),
    (&["UserList"], &["UserList"], Object),
    (&["numpy.core.multiarray", "numpy._core.multiarray"], &["scalar"], Call(2, 2)),
    (&["numpy.core.multiarray", "numpy._core.multiarray"], &["_reconstruct"], Call(3, 3)),
    (&["numpy.core.numeric", "numpy._core.numeric"], &["_frombuffer"], Call(4, 5)),
    (&["numpy"], &["dtype"], Call(3, 3)),
    (
        &["numpy"],
        &[
            "ndarray",
            "bool_",
            "bool",
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
            "float16",
            "float32",
            "float64",
            "longdouble",
            "complex64",
            "complex128",
            "str_",
            "bytes_",
            "object_",
            "void",
            "datetime64",
            "timedelta64",
        ],
        Named,
    ),
    (
        &["pathlib", "pathlib._local"],
        &["Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"],
        Call(0, u32::MAX),
    ),
    (&["datetime"], &["datetime", "time", "timezone"], Call(1, 2)),
    (&["datetime"], &["date"], Call(1, 1)),
    (&["datetime"], &["timedelta"], Call(3, 3)),
    (&["fractions"], &["Fraction"], Call(1, 2)),
    (&["decimal"], &["Decimal"], Call(1, 1)),
    (&["uuid"], &["UUID"], Object),
    (&["uuid"], &["SafeUUID"], Call(1, 1)),
    (&["typing"], &["Any", "Dict", "List", "Tuple", "Set", "Optional", "Union"], Named),
    (&["omegaconf.dictconfig"], &["DictConfig"], Object),
    (&["omegaconf.listconfig"], &["ListConfig"], Object),
    (&["omegaconf.base"], &["ContainerMetadata", "Metadata"], Object),
    (
        &["omegaconf.nodes"],
        &[
            "AnyNode",
            "BooleanNode",
            "BytesNode",
            "EnumNode",
            "FloatNode",
            "IntegerNode",
            "InterpolationResultNode",
            "PathNode",
            "StringNode",
        ],
        Object,
    ),
    (
        &[
            "lightning.fabric.utilities.data",
            "lightning.pytorch.utilities.parsing",
            "lightning_fabric.utilities.data",
            "lightning_lite.utilities.data",
            "pytorch_lightning.utilities.data",
            "pytorch_lightning.utilities.parsing",
        ],
        &["AttributeDict"],
        Object,
    ),
    // Lightning before 1.5 keeps the states of callbacks under their classes.
    (&["pytorch_lightning.callbacks.model_checkpoint"], &["ModelCheckpoint"], Named),
    (&["pytorch_lightning.callbacks.early_stopping"], &["EarlyStopping"], Named),
    (&["torch.torch_version"], &["TorchVersion"], Call(1, 1)),
    (
        &["transformers.trainer_utils"],
        &[
            "EvaluationStrategy",
            "FSDPOption",
            "HubStrategy",
            "IntervalStrategy",
            "SaveStrategy",
            "SchedulerType",
        ],
        Call(1, 1),
    ),
    (&["transformers.training_args"], &["OptimizerNames", "ParallelMode"], Call(1, 1)),
    (&["transformers.debug_utils"], &["DebugOption"], Call(1, 1)),
    (&["transformers.training_args"], &["TrainingArguments"], Object),
    (&["transformers.training_args_seq2seq"], &["Seq2SeqTrainingArguments"], Object),
    (&["transformers.trainer_pt_utils"], &["AcceleratorConfig"], Object),
    (&["accelerate.utils.dataclasses"], &["DistributedType"], Call(1, 1)),
    (&["accelerate.state"], &["PartialState"], Object),
];

/// What makes numpy's arrays; each is alone in its group.
const ARRAYS: [&str; 2] = ["_reconstruct", "_frombuffer"];

/// A name of the table, by its group and its places in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Inert {
    group: u8,
    module: u8,
    name: u8,
}

impl Inert {
    /// The table's `module.name`, or `None` where it has no such.
    pub(crate) fn find(module: &str, name: &str) -> Option<Inert> {
        let place = |words: &[&str], word| {
            words.iter().position(|known| *known == word).and_then(|at| u8::try_from(at).ok())
        };
        GROUPS.iter().enumerate().find_map(|(group, (modules, names, _))| {
            let (module, name) = (place(modules, module)?, place(names, name)?);
            Some(Inert { group: u8::try_from(group).ok()?, module, name })
        })
    }

    /// Whether its values are numpy arrays.
    pub(crate) fn makes_array(self) -> bool {
        GROUPS
            .get(usize::from(self.group))
            .is_some_and(|group| group.1.first().is_some_and(|name| ARRAYS.contains(name)))
    }

    /// How values of it are made.
    pub(crate) fn form(self) -> Form {
        GROUPS.get(usize::from(self.group)).map_or(Named, |group| group.2)
    }
}

impl fmt::Display for Inert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((modules, names, _)) = GROUPS.get(usize::from(self.group)) else { return Ok(()) };
        let word = |words: &[&'static str], at: u8| words.get(usize::from(at)).copied();
        let module = word(modules, self.module).unwrap_or("?");
        write!(f, "{module}.{}", word(names, self.name).unwrap_or("?"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::torch::pickle::names::denylist::runs_code;
    use crate::format::torch::pickle::names::globals::lookup;

    #[test]
    fn the_table_adds_to_torchs_list_and_holds_nothing_that_runs_code() {
        for (modules, names, _) in GROUPS {
            for module in *modules {
                for name in *names {
                    let full = format!("{module}.{name}");
                    let inert = Inert::find(module, name).expect("a name of the table");
                    assert_eq!(inert.to_string(), full);
                    assert_eq!(lookup(module, name), None, "{full} is on torch's list");
                    // The few of Python's own that are data are known, so they need no `--opaque`.
                    let own = inert.form() == Reconstructor || BUILTINS.contains(module);
                    assert!(own || !runs_code(&full), "{full}");
                }
            }
        }
    }

    #[test]
    fn names_are_found_whole_or_not_at_all() {
        for (module, name) in [
            ("argparse", "Namespace.__init__"),
            ("argparse", "ArgumentParser"),
            ("argparse.Namespace", ""),
            ("", "argparse.Namespace"),
            ("pathlib", "Path.write_text"),
            ("collections", "namedtuple"),
            ("builtins", "type"),
            ("builtins", "map"),
            ("numpy", "memmap"),
            ("types", "FunctionType"),
            ("uuid", "_popen"),
            ("copyreg", "__newobj__"),
        ] {
            assert_eq!(Inert::find(module, name), None, "{module}.{name}");
        }
    }
}

//! Looks up in a table the globals that a pickle may name. Nothing is imported and nothing called.
//!
//! The table is torch 2.11's own `weights_only` list (144 names, `torch/_weights_only_unpickler.py`,
//! `_get_allowed_globals`), with Python 2's name for `builtins` and the storage classes' short-lived
//! names of torch 1.11. A name outside it that is neither inert nor given by the user is refused when it
//! is met, wherever it stands.

use std::fmt;

use crate::format::torch::pickle::names::inert::Inert;
use crate::tensor::DType;

/// What an allowed global means to the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Global {
    /// `collections.OrderedDict`: a dict.
    OrderedDict,
    /// `torch.Size`: a tuple of integers.
    Size,
    /// `torch.Tensor`, as the type argument of `_rebuild_from_type_v2`.
    Tensor,
    /// `torch.nn.parameter.Parameter`, likewise.
    Parameter,
    /// A dtype such as `torch.float16`.
    DType(DType),
    /// A storage class.
    Storage(StorageClass),
    /// A function that makes a tensor we read.
    Rebuild(Rebuild),
    /// A function or class that makes a tensor of a kind we do not read.
    OtherTensor(Name),
    /// On torch's list, and makes no tensor (`complex`, `torch.device`, ...).
    NoTensor(Name),
    /// Not on torch's list, and known to be data.
    Inert(Inert),
    /// A name that the user gave (`--opaque`), by its place among those.
    Given(u16),
}

/// The classes of storages (`docs/formats.md` B.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StorageClass {
    /// `torch.<X>Storage` of this dtype.
    Typed(DType),
    /// `torch.storage.UntypedStorage`: bytes.
    Untyped,
    /// A quantised class, with bytes per element.
    Quantised(Name, u8),
    /// `torch.storage.TypedStorage`: has no dtype of its own, so it can't be read.
    Abstract,
}

/// Functions of `torch._utils` and `torch._tensor` that lead to a strided tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Rebuild {
    /// `_rebuild_tensor(storage, offset, size, stride)`.
    Tensor,
    /// `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata])`.
    TensorV2,
    /// `_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])`.
    TensorV3,
    /// `_rebuild_parameter(tensor, requires_grad, hooks)`.
    Parameter,
    /// `_rebuild_parameter_with_state(tensor, requires_grad, hooks, state)`.
    ParameterWithState,
    /// `_rebuild_from_type_v2(function, type, arguments, state)`.
    FromTypeV2,
    /// `_rebuild_device_tensor_from_cpu_tensor(tensor, dtype, device, requires_grad)`.
    DeviceFromCpu,
}

/// Index of a name in [`NAMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name(u8);

impl Name {
    fn of(name: &str) -> Option<Name> {
        let index = NAMES.iter().position(|known| *known == name)?;
        u8::try_from(index).ok().map(Name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES.get(usize::from(self.0)).copied().unwrap_or("?"))
    }
}

/// Names kept for messages: quantised storages, other tensors, and what makes no tensor.
const NAMES: &[&str] = &[
    "QInt32Storage",
    "QInt8Storage",
    "QUInt2x4Storage",
    "QUInt4x2Storage",
    "QUInt8Storage",
    "_rebuild_device_tensor_from_numpy",
    "_rebuild_meta_tensor_no_storage",
    "_rebuild_nested_tensor",
    "_rebuild_qtensor",
    "_rebuild_sparse_tensor",
    "_rebuild_wrapper_subclass",
    "BFloat16Tensor",
    "BoolTensor",
    "ByteTensor",
    "CharTensor",
    "DoubleTensor",
    "FloatTensor",
    "HalfTensor",
    "IntTensor",
    "LongTensor",
    "ShortTensor",
    "Counter",
    "_get_layout",
    "bytearray",
    "complex",
    "device",
    "encode",
    "int1",
    "int2",
    "int3",
    "int4",
    "int5",
    "int6",
    "int7",
    "per_channel_affine",
    "per_channel_affine_float_qparams",
    "per_channel_symmetric",
    "per_tensor_affine",
    "per_tensor_symmetric",
    "qint32",
    "qint8",
    "quint2x4",
    "quint4x2",
    "quint8",
    "set",
    "uint1",
    "uint2",
    "uint3",
    "uint4",
    "uint5",
    "uint6",
    "uint7",
];

/// The meaning of `module.name`, or `None` where torch's list does not have it.
pub(crate) fn lookup(module: &str, name: &str) -> Option<Global> {
    let no_tensor = || Name::of(name).map(Global::NoTensor);
    match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("collections", "Counter") => no_tensor(),
        ("builtins" | "__builtin__", "bytearray" | "complex" | "set") => no_tensor(),
        ("_codecs", "encode") | ("torch.serialization", "_get_layout") => no_tensor(),
        ("torch", "Size") => Some(Global::Size),
        ("torch", "Tensor") => Some(Global::Tensor),
        ("torch", "device") => no_tensor(),
        ("torch.nn.parameter", "Parameter") => Some(Global::Parameter),
        ("torch._tensor", "_rebuild_from_type_v2") => Some(Global::Rebuild(Rebuild::FromTypeV2)),
        ("torch._utils", _) => rebuild(name),
        ("torch.storage", _) => match name {
            "UntypedStorage" | "_UntypedStorage" => Some(Global::Storage(StorageClass::Untyped)),
            "TypedStorage" | "_TypedStorage" => Some(Global::Storage(StorageClass::Abstract)),
            _ => None,
        },
        ("torch", _) => storage(name, true)
            .or_else(|| tensor_class(name))
            .or_else(|| DType::from_name(name).map(Global::DType))
            .or_else(|| torch_word(name)),
        ("torch.cuda", _) => storage(name, false).or_else(|| tensor_class(name)),
        ("torch.sparse" | "torch.cuda.sparse", _) if name != "BoolTensor" => tensor_class(name),
        _ => None,
    }
}

fn rebuild(name: &str) -> Option<Global> {
    let function = match name {
        "_rebuild_tensor" => Rebuild::Tensor,
        "_rebuild_tensor_v2" => Rebuild::TensorV2,
        "_rebuild_tensor_v3" => Rebuild::TensorV3,
        "_rebuild_parameter" => Rebuild::Parameter,
        "_rebuild_parameter_with_state" => Rebuild::ParameterWithState,
        "_rebuild_device_tensor_from_cpu_tensor" => Rebuild::DeviceFromCpu,
        _ if name.starts_with("_rebuild_") => return Name::of(name).map(Global::OtherTensor),
        _ => return None,
    };
    Some(Global::Rebuild(function))
}

fn storage(name: &str, quantised: bool) -> Option<Global> {
    if let Some(dtype) = DType::from_storage_class(name) {
        return Some(Global::Storage(StorageClass::Typed(dtype)));
    }
    let size_bytes = match name {
        "QInt8Storage" | "QUInt8Storage" | "QUInt4x2Storage" | "QUInt2x4Storage" => 1,
        "QInt32Storage" => 4,
        _ => return None,
    };
    let name = Name::of(name).filter(|_| quantised)?;
    Some(Global::Storage(StorageClass::Quantised(name, size_bytes)))
}

fn tensor_class(name: &str) -> Option<Global> {
    if name.ends_with("Tensor") { Name::of(name).map(Global::OtherTensor) } else { None }
}

/// The dtypes and quantisation schemes of `torch` that no tensor we read has.
fn torch_word(name: &str) -> Option<Global> {
    let known = name
        .strip_prefix("uint")
        .or(name.strip_prefix("int"))
        .is_some_and(|bits| matches!(bits, "1" | "2" | "3" | "4" | "5" | "6" | "7"))
        || name.starts_with("per_")
        || name.starts_with("qint")
        || name.starts_with("quint");
    if known { Name::of(name).map(Global::NoTensor) } else { None }
}

impl Global {
    /// Whether a value of it is left out and named: torch's list lacks it.
    pub(crate) fn is_foreign(self) -> bool {
        matches!(self, Global::Inert(_) | Global::Given(_))
    }

    /// Whether a value made by calling this is a numpy array: it may be a weight, too.
    pub(crate) fn makes_array(self) -> bool {
        matches!(self, Global::Inert(name) if name.makes_array())
    }

    /// Whether a value made by calling this is a tensor, of whatever kind.
    pub(crate) fn makes_tensor(self) -> bool {
        matches!(
            self,
            Global::Rebuild(_) | Global::OtherTensor(_) | Global::Tensor | Global::Parameter
        )
    }
}

impl fmt::Display for Global {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Global::OrderedDict => f.write_str("OrderedDict"),
            Global::Size => f.write_str("Size"),
            Global::Tensor => f.write_str("Tensor"),
            Global::Parameter => f.write_str("Parameter"),
            Global::DType(dtype) => write!(f, "torch.{dtype}"),
            Global::Storage(class) => write!(f, "{class}"),
            Global::Rebuild(function) => f.write_str(function.name()),
            Global::OtherTensor(name) | Global::NoTensor(name) => write!(f, "{name}"),
            Global::Inert(name) => write!(f, "{name}"),
            Global::Given(_) => f.write_str("a name given by --opaque"),
        }
    }
}

impl Rebuild {
    /// torch's name of the function.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Rebuild::Tensor => "_rebuild_tensor",
            Rebuild::TensorV2 => "_rebuild_tensor_v2",
            Rebuild::TensorV3 => "_rebuild_tensor_v3",
            Rebuild::Parameter => "_rebuild_parameter",
            Rebuild::ParameterWithState => "_rebuild_parameter_with_state",
            Rebuild::FromTypeV2 => "_rebuild_from_type_v2",
            Rebuild::DeviceFromCpu => "_rebuild_device_tensor_from_cpu_tensor",
        }
    }
}

impl StorageClass {
    /// Bytes per element as the persistent id counts them; `None` for the abstract class.
    pub(crate) fn size_bytes(self) -> Option<u64> {
        match self {
            StorageClass::Typed(dtype) => Some(dtype.size_bytes()),
            StorageClass::Untyped => Some(1),
            StorageClass::Quantised(_, size_bytes) => Some(u64::from(size_bytes)),
            StorageClass::Abstract => None,
        }
    }
}

impl fmt::Display for StorageClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StorageClass::Typed(dtype) => f.write_str(dtype.storage_class().unwrap_or("?")),
            StorageClass::Untyped => f.write_str("UntypedStorage"),
            StorageClass::Quantised(name, _) => write!(f, "{name}"),
            StorageClass::Abstract => f.write_str("TypedStorage"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_of_torchs_list_are_known_and_no_others() {
        let listed = include_str!("../../../../../tests/data/format/weights_only_globals.txt");
        let mut count = 0;
        for line in listed.lines() {
            let (module, name) = line.rsplit_once('.').unwrap_or_default();
            assert!(lookup(module, name).is_some(), "{line} is not known");
            count += 1;
        }
        assert_eq!(count, 144);
        // Every name of the list, in every module of the list: known there and only there.
        for module in listed.lines().filter_map(|line| line.rsplit_once('.')).map(|pair| pair.0) {
            for name in listed.lines().filter_map(|line| line.rsplit_once('.')).map(|pair| pair.1) {
                let full = format!("{module}.{name}");
                let on_list = listed.lines().any(|line| line == full);
                assert_eq!(lookup(module, name).is_some(), on_list, "{full}");
            }
        }
    }

    #[test]
    fn names_that_run_code_are_not_known() {
        for (module, name) in [
            ("posix", "system"),
            ("os", "system"),
            ("builtins", "eval"),
            ("__builtin__", "getattr"),
            ("torch", "load"),
            ("torch.storage", "_load_from_bytes"),
            ("torch._utils", "_rebuild_tensor_v2 "),
            ("torch._utils", "_import_dotted_name"),
            ("torch", "Storage"),
            ("numpy.core.multiarray", "scalar"),
            ("argparse", "Namespace"),
            ("torch\r", "Size"),
            ("collections.OrderedDict", ""),
        ] {
            assert_eq!(lookup(module, name), None, "{module}.{name}");
        }
    }
}

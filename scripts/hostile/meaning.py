"""Rows P11 and P13 of docs/reliability.md: lies within the allowed names, and kinds we don't merge."""

from . import carriers
from .carriers import Entry, archive, stored
from .opcodes import (HOOKS, SIX_FLOATS, call, glob, ints, num, pairs, state_dict, storage, tensor, text, tup,
                      whole)

BIG = 1 << 62


def rows():
    """As in gadgets."""
    yield from lies()
    yield from kinds()


def raw_tensor(*arguments, function="_rebuild_tensor_v2"):
    return call("torch._utils", function, *arguments)


def lies():
    bounds, size, pickle, name = "TensorBounds", "StorageSize", "Pickle", "TensorName"
    s, usual = storage, (ints([2, 3]), ints([3, 1]), b"\x89", HOOKS)
    values = [
        ("numel-beyond-record", tensor(s("0", 1_000_000), 0, (2, 3), (3, 1)), size, "24"),
        ("numel-one-more", tensor(s("0", 7)), size, "24"), ("numel-negative", tensor(s("0", -6)), size, "-6"),
        ("numel-2-62", tensor(s("0", BIG)), size, ""), ("numel-2-63", tensor(s("0", 1 << 63)), size, ""),
        ("numel-float", tensor(s("0", b"G" + bytes(8))), size, "float"), ("numel-none", tensor(s("0", b"N")), size, "None"),
        ("numel-tuple", tensor(s("0", tup(num(6)))), size, "tuple"),
        ("class-wider", tensor(s("0", 6, "DoubleStorage")), size, "DoubleStorage"),
        ("offset-past-storage", tensor(offset=7), bounds, ""), ("offset-pushes-out", tensor(offset=1), bounds, ""),
        ("offset-negative", tensor(offset=-1), bounds, "-1"), ("offset-2-62", tensor(offset=BIG), bounds, ""),
        ("offset-2-64", tensor(offset=1 << 64), bounds, ""), ("offset-float", tensor(offset=b"G" + bytes(8)), bounds, "float"),
        ("offset-text", tensor(offset=text("0")), bounds, "string"), ("offset-bool", tensor(offset=b"\x88"), bounds, "bool"),
        ("size-too-large", tensor(size=(3, 3)), bounds, ""), ("size-negative", tensor(size=(-2, 3)), bounds, "-2"),
        ("size-overflows", tensor(size=(BIG, BIG), stride=(0, 0)), bounds, ""),
        ("size-2-32-squared", tensor(size=(1 << 32, 1 << 32), stride=(0, 0)), bounds, ""),
        ("size-long", tensor(size=(1 << 70,), stride=(1,)), bounds, "long"),
        ("size-float", tensor(size=b"G" + bytes(8)), bounds, "float"), ("size-nested", tensor(size=tup(ints([2]), ints([3]))), bounds, "tuple"),
        ("size-text", tensor(size=tup(text("2"), text("3"))), bounds, "string"), ("size-dict", tensor(size=b"}"), bounds, "dict"),
        ("stride-past-end", tensor(stride=(100, 1)), bounds, ""), ("stride-negative", tensor(stride=(-3, 1)), bounds, "-3"),
        ("stride-overflows", tensor(size=(3, 3), stride=(BIG, BIG)), bounds, ""), ("stride-rank", tensor(stride=(3, 1, 1)), bounds, "strides"),
        ("stride-rank-zero", tensor(stride=()), bounds, "strides"), ("rank-65", tensor(size=(1,) * 65, stride=(1,) * 65), bounds, "64"),
        ("empty-overflow", tensor(size=(0, BIG, BIG), stride=(1, 1, 1), offset=1 << 63), bounds, ""),
        ("arity-none", raw_tensor(), pickle, "0 arguments"), ("arity-one", raw_tensor(s()), pickle, "1 argument"),
        ("arity-three", raw_tensor(s(), num(0), ints([2])), pickle, "3 arguments"),
        ("arity-nine", raw_tensor(s(), num(0), *usual, b"N", b"N", b"N"), pickle, "9 arguments"),
        ("arity-parameter", raw_tensor(function="_rebuild_parameter"), pickle, "0 arguments"),
        ("storage-number", raw_tensor(num(7), num(0), *usual), pickle, "integer"), ("storage-none", raw_tensor(b"N", num(0), *usual), pickle, "None"),
        ("storage-is-tensor", raw_tensor(tensor(), num(0), *usual), pickle, "storage"),
        ("storage-is-class", raw_tensor(glob("torch", "FloatStorage"), num(0), *usual), pickle, "FloatStorage"),
        ("pid-number", raw_tensor(num(1) + b"Q", num(0), *usual), pickle, ""), ("pid-text", raw_tensor(text("storage") + b"Q", num(0), *usual), pickle, ""),
        ("pid-empty", raw_tensor(b")Q", num(0), *usual), pickle, ""), ("pid-other-kind", raw_tensor(tup(text("file"), text("/etc/passwd")) + b"Q", num(0), *usual), pickle, ""),
        ("pid-four-items", raw_tensor(tup(text("storage"), glob("torch", "FloatStorage"), text("0"), text("cpu")) + b"Q", num(0), *usual), pickle, "items"),
        ("pid-six-items", tensor(s(view=b"N")), pickle, "items"), ("pid-class-text", tensor(tup(text("storage"), text("FloatStorage"), text("0"), text("cpu"), num(6)) + b"Q"), pickle, "class"),
        ("pid-class-dtype", tensor(tup(text("storage"), glob("torch", "float32"), text("0"), text("cpu"), num(6)) + b"Q"), pickle, "class"),
        ("pid-in-pid", tensor(tup(text("storage"), glob("torch", "FloatStorage"), storage(), text("cpu"), num(6)) + b"Q"), pickle, "key"),
        ("key-missing", tensor(s("7")), "MissingRecord", "data/7"), ("key-path", tensor(s("../data.pkl")), "MissingRecord", "../data.pkl"),
        ("key-climbs", tensor(s("../../../../etc/passwd")), "MissingRecord", "etc/passwd"), ("key-absolute", tensor(s("/etc/passwd")), "MissingRecord", "etc/passwd"),
        ("key-nul", tensor(s("0\0")), "MissingRecord", ""), ("key-empty", tensor(s("")), "MissingRecord", ""), ("key-blank", tensor(s("0 ")), "MissingRecord", ""),
        ("key-case", tensor(s("A")), "MissingRecord", "data/A"), ("key-number-negative", tensor(s(num(-1))), pickle, "key"), ("key-float", tensor(s(b"G" + bytes(8))), pickle, "key"),
        ("key-escape-codes", tensor(s("\x1b[2J")), "MissingRecord", "\\u{1b}"),
        ("setitem-on-tensor", tensor() + text("x") + num(1) + b"s", pickle, "dict"), ("setitem-on-storage", s() + text("x") + num(1) + b"s", pickle, "dict"),
        ("append-to-tensor", tensor() + num(1) + b"a", pickle, "list"), ("append-to-storage", s() + num(1) + b"a", pickle, "list"),
    ]
    for slug, value, rule, says in values:
        yield f"p11-{slug}", "P11", slug.replace("-", " "), stored(state_dict(("w", value))), rule, says
    dicts = [
        ("name-twice", pairs(("w", tensor()), ("w", tensor())), name, "twice"),
        ("name-number", b"}(" + num(0) + tensor() + b"u", name, "names as text"), ("name-none", b"}(N" + tensor() + b"u", name, "None"),
        ("name-tuple", b"}(" + tup(text("w")) + tensor() + b"u", name, "tuple"), ("name-bytes", b"}(C\x01w" + tensor() + b"u", name, "bytes"),
        ("name-bool", b"}(\x88" + tensor() + b"u", name, "bool"), ("top-list", b"](" + tensor() + b"e", "NoStateDict", "list"),
        ("top-tensor", tensor(), "NoStateDict", ""), ("top-storage", storage(), "NoStateDict", "storage"), ("top-none", b"N", "NoStateDict", "None"),
        ("top-text", text("x"), "NoStateDict", "string"), ("top-of-numbers", pairs(("a", num(1))), "NoStateDict", ""),
        ("two-state-dicts", pairs(("model", pairs(("w", tensor()))), ("state_dict", pairs(("w", tensor())))), "SeveralStateDicts", "state_dict"),
        ("storage-as-value", pairs(("w", storage())), "Unsupported", "storage"),
    ]
    for slug, value, rule, says in dicts:
        yield f"p11-{slug}", "P11", slug.replace("-", " "), stored(whole(value)), rule, says
    two = pairs(("a", tensor()), ("b", tensor(storage("0", 3, "DoubleStorage"), 0, (4,), (1,))))
    yield "p11-two-dtypes-beyond", "P11", "one key with two dtypes, the second too long", stored(whole(two)), bounds, "`b`"
    parts = carriers.entries(state_dict(("a", tensor(storage("a"))), ("b", tensor(storage("A")))))
    parts[1] = Entry("x/data/a", SIX_FLOATS)
    yield ("p11-keys-by-case", "P11", "two storages whose keys differ by case", archive(parts + [Entry("x/data/A", SIX_FLOATS)]),
           "ZipOverlap", "again")
    short = carriers.entries(data=SIX_FLOATS[:20])
    yield "p11-record-short", "P11", "a record of 20 bytes for six floats", archive(short), size, "20"
    yield "p11-record-empty", "P11", "a record without bytes", archive(carriers.entries(data=b"")), size, "found 0"


def kinds():
    unsupported = "Unsupported"
    v3 = (storage("0", 24, "UntypedStorage", module="torch.storage"), num(0), ints([6]), ints([1]), b"\x89", HOOKS)
    usual = (storage(), num(0), ints([2, 3]), ints([3, 1]), b"\x89", HOOKS)
    cases = [
        ("sparse", raw_tensor(glob("torch.serialization", "_get_layout"), b")", function="_rebuild_sparse_tensor"), unsupported, "sparse"),
        ("quantised", raw_tensor(*usual, function="_rebuild_qtensor"), unsupported, "qtensor"),
        ("quantised-storage", tensor(storage("0", 6, "QInt8Storage")), unsupported, "QInt8Storage"),
        ("nested", raw_tensor(*usual, function="_rebuild_nested_tensor"), unsupported, "nested"),
        ("meta", raw_tensor(b"N", b")", b")", b"\x89", function="_rebuild_meta_tensor_no_storage"), unsupported, "meta"),
        ("wrapper-subclass", raw_tensor(b"N", function="_rebuild_wrapper_subclass"), unsupported, "wrapper"),
        ("from-numpy", raw_tensor(b"N", b"N", text("cpu"), b"\x89", function="_rebuild_device_tensor_from_numpy"), unsupported, "numpy"),
        ("conjugate", raw_tensor(*usual, pairs(("conj", b"\x88"))), unsupported, "conjugate"),
        ("negative", raw_tensor(*usual, pairs(("neg", b"\x88"))), unsupported, "negative"),
        ("typed-storage", tensor(storage("0", 6, "TypedStorage", module="torch.storage")), unsupported, "TypedStorage"),
        ("tensor-class", call("torch", "FloatTensor", num(6)), unsupported, "FloatTensor"),
        ("tensor-called", call("torch", "Tensor", num(6)), unsupported, "Tensor"),
        ("subclass-of-tensor", call("torch._tensor", "_rebuild_from_type_v2", glob("torch._utils", "_rebuild_tensor_v2"),
                                    glob("torch", "FloatStorage"), tup(*usual), b"}"), unsupported, "FloatStorage"),
        ("from-type-of-another-function", call("torch._tensor", "_rebuild_from_type_v2", glob("collections", "OrderedDict"),
                                               glob("torch", "Tensor"), tup(*usual), b"}"), unsupported, "OrderedDict"),
        ("parameter-of-nothing", raw_tensor(b"N", b"\x88", HOOKS, function="_rebuild_parameter"), unsupported, "None"),
        ("dtype-quantised", raw_tensor(*v3, glob("torch", "qint8"), function="_rebuild_tensor_v3"), unsupported, "qint8"),
        ("dtype-text", raw_tensor(*v3, text("float32"), function="_rebuild_tensor_v3"), unsupported, "string"),
        ("dtensor", call("torch.distributed.tensor", "DTensor", num(1)), "ForbiddenGlobal", "DTensor"),
        ("numpy-array", call("numpy.core.multiarray", "_reconstruct", glob("numpy", "ndarray"), ints([0]), b"C\x01b"), "NoStateDict", "numpy"),
        ("module-of-torch", call("torch.nn.modules.linear", "Linear", num(2), num(3)), "ForbiddenGlobal", "Linear"),
        ("module-of-transformers", glob("transformers.models.llama.modeling_llama", "LlamaForCausalLM") + b")\x81", "ForbiddenGlobal", "Llama"),
        ("bits-of-complex", tensor(storage("0", 3, "ComplexFloatStorage"), 0, (3,), (1,)), "merge", "complex64"),
    ]
    for slug, value, rule, says in cases:
        yield f"p13-{slug}", "P13", slug.replace("-", " "), stored(state_dict(("w", value))), rule, says
    module = tup(text("module"), glob("torch", "Tensor"), text("m.py"), text("source")) + b"Q"
    yield ("p13-whole-module-legacy", "P13", "a whole module in a legacy file", carriers.legacy(4, whole(pairs(("w", module)))),
           unsupported, "whole module")

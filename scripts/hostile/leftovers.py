"""Rows P1, P3, P6, P11 and P12 of RELIABILITY 3.1 around what training programs leave beside the weights:
names that are data, with neighbours that run code, tricks of their states, and tensors hidden in them."""

from . import carriers
from .carriers import stored
from .opcodes import CANARY, call, glob, num, pairs, stack_glob, state_dict, storage, tensor, text, tup, whole

TOUCH = text(f"touch {CANARY}")
SYSTEM = call("os", "system", TOUCH)
NAMESPACE = glob("argparse", "Namespace")
FORBIDDEN, UNSUPPORTED = "ForbiddenGlobal", "Unsupported"


def made(module, name, state):
    """NEWOBJ and BUILD, as most objects are written."""
    return glob(module, name) + b")\x81" + state + b"b"


def namespace(*attributes):
    return made("argparse", "Namespace", pairs(*attributes))


def dtype(*arguments):
    return call("numpy", "dtype", *arguments)


def rows():
    """As in gadgets."""
    for slug, row, value, rule, says in [*neighbours(), *dotted(), *states(), *hidden()]:
        what = slug.replace("-", " ")
        yield f"{row.lower()}-left-{slug}", row, what, stored(state_dict(("x", value), ("w", tensor()))), rule, says
        if row in ("P1", "P6"):
            weight = tensor(storage(view=b"N"))
            legacy = carriers.legacy(4, whole(pairs(("x", value), ("w", weight))))
            yield f"{row.lower()}-left-{slug}-legacy", row, f"{what} in a legacy file", legacy, rule, says
    yield from whole_files()


def neighbours():
    """Code beside data: in arguments, states, items, keys, and as the class of a builder."""
    factory = glob("collections", "defaultdict")
    scalar = ("numpy.core.multiarray", "scalar")
    array = call("numpy.core.multiarray", "_reconstruct", glob("numpy", "ndarray"), tup(num(0)), b"C\x01b")
    config = ("omegaconf.dictconfig", "DictConfig")
    system, evil = glob("os", "system"), "os.system"
    return [
        ("namespace-of-a-call", "P1", namespace(("a", SYSTEM)), FORBIDDEN, evil),
        ("namespace-of-a-name", "P1", namespace(("a", system)), FORBIDDEN, evil),
        ("simple-namespace-of-a-call", "P1", call("types", "SimpleNamespace") + pairs(("a", SYSTEM)) + b"b", FORBIDDEN, evil),
        ("defaultdict-of-system", "P1", factory + tup(system) + b"R", FORBIDDEN, evil),
        ("defaultdict-of-a-call", "P1", factory + tup(b"N") + b"R" + text("k") + SYSTEM + b"s", FORBIDDEN, evil),
        ("deque-of-a-call", "P1", call("collections", "deque") + SYSTEM + b"a", FORBIDDEN, evil),
        ("path-of-a-call", "P1", call("pathlib", "PosixPath", SYSTEM), FORBIDDEN, evil),
        ("enum-of-a-call", "P1", call("transformers.trainer_utils", "SchedulerType", SYSTEM), FORBIDDEN, evil),
        ("scalar-of-a-call", "P1", call(*scalar, SYSTEM, b"C\x01a"), FORBIDDEN, evil),
        ("array-of-a-call", "P1", array + tup(num(1), tup(num(1)), SYSTEM, b"\x89", b"]" + SYSTEM + b"a") + b"b", FORBIDDEN, evil),
        ("array-of-eval", "P1", call("numpy.core.multiarray", "_reconstruct", glob("builtins", "eval"), tup(), b"C\x01b"), FORBIDDEN, "builtins.eval"),
        ("config-of-a-call", "P1", made(*config, pairs(("_content", SYSTEM))), FORBIDDEN, evil),
        ("config-of-getitem", "P1", made(*config, pairs(("ref", call("operator", "getitem", glob("typing", "Dict"), num(0))))), FORBIDDEN, "operator.getitem"),
        ("attributes-keyed-by-a-call", "P1", glob("lightning.fabric.utilities.data", "AttributeDict") + b")\x81" + SYSTEM + b"Ns", FORBIDDEN, evil),
        ("builder-of-system", "P1", call("copyreg", "_reconstructor", system, glob("builtins", "object"), b"N"), FORBIDDEN, evil),
        ("builder-of-a-tensor", "P1", call("copyreg", "_reconstructor", glob("torch", "Tensor"), glob("builtins", "object"), b"N"), FORBIDDEN, "_reconstructor"),
        ("builder-with-a-call-as-base", "P1", call("copyreg", "_reconstructor", NAMESPACE, namespace(), b"N"), FORBIDDEN, "_reconstructor"),
        ("getattr-of-a-namespace", "P1", call("builtins", "getattr", NAMESPACE, text("__init__")), FORBIDDEN, "builtins.getattr"),
        ("type-of-a-namespace", "P1", call("builtins", "type", NAMESPACE), FORBIDDEN, "builtins.type"),
        ("namespace-made-of-text", "P1", NAMESPACE + tup(TOUCH) + b"\x81", FORBIDDEN, "argparse.Namespace"),
        ("type-called", "P1", call("builtins", "int", TOUCH), FORBIDDEN, "builtins.int"),
        ("dtype-of-code", "P1", dtype(TOUCH, TOUCH), FORBIDDEN, "numpy.dtype"),
        ("typing-called", "P1", call("typing", "Any", TOUCH), FORBIDDEN, "typing.Any"),
        ("parser", "P1", call("argparse", "ArgumentParser", TOUCH), FORBIDDEN, "argparse.ArgumentParser"),
        ("memmap", "P1", call("numpy", "memmap", text(CANARY)), FORBIDDEN, "numpy.memmap"),
        ("config-from-a-file", "P1", call("omegaconf", "OmegaConf.load", text(CANARY)), FORBIDDEN, "OmegaConf.load"),
        ("inst", "P6", b"(iargparse\nNamespace\n", FORBIDDEN, "argparse.Namespace"),
        ("obj", "P6", b"(" + NAMESPACE + b"o", "Pickle", "Obj"),
        ("keywords", "P6", NAMESPACE + b")" + pairs(("a", num(1))) + b"\x92", "Pickle", "keyword"),
        ("call-of-an-object", "P6", namespace() + tup(TOUCH) + b"R", "Pickle", "function"),
    ]


def dotted():
    """Attributes of the names, by STACK_GLOBAL."""
    names = [("argparse", "Namespace.__init__"), ("argparse", "Namespace.__init__.__globals__"), ("argparse", "_os.system"),
             ("argparse.Namespace", "__init__"), ("pathlib", "PosixPath.unlink"), ("pathlib", "os.system"), ("pathlib._local", "os.system"),
             ("collections", "defaultdict.__missing__"), ("collections", "_sys.modules"), ("types", "SimpleNamespace.__reduce__"),
             ("types", "sys.modules"), ("typing", "Any.__class__"), ("typing", "sys.modules"), ("uuid", "os.system"), ("uuid", "UUID.__setstate__"),
             ("numpy", "dtype.type"), ("numpy", "os.system"), ("datetime", "sys.modules"), ("decimal", "Decimal.from_float"), ("fractions", "operator.attrgetter"),
             ("omegaconf.base", "sys.modules"), ("torch.torch_version", "TorchVersion.__new__"), ("builtins", "int.from_bytes"), ("copyreg", "sys.modules")]
    for number, (module, name) in enumerate(names):
        yield f"dotted-{number}", "P3", stack_glob(module, name), FORBIDDEN, f"`{module}.{name}`"


def states():
    """States that change what an object does."""
    own = "Python's own"
    for word in ["__setstate__", "__class__", "__dict__", "__reduce__", "__reduce_ex__", "__getattr__", "__del__"]:
        yield f"state-{word.strip('_').replace('_', '-')}", "P6", namespace((word, b"N")), UNSUPPORTED, own
    slots = tup(b"N", pairs(("__class__", b"N")))
    yield "state-of-slots", "P6", made("argparse", "Namespace", slots), UNSUPPORTED, own
    twice = namespace(("a", num(1))) + pairs(("__setstate__", NAMESPACE)) + b"b"
    yield "state-given-twice", "P6", twice, UNSUPPORTED, own
    yield "state-of-a-name", "P6", NAMESPACE + pairs(("a", num(1))) + b"b", UNSUPPORTED, "state"
    yield "state-of-a-set", "P6", call("builtins", "set", b"]") + pairs(("a", num(1))) + b"b", UNSUPPORTED, "state"
    yield "good", "P6", namespace(("lr", num(1)), ("out", call("pathlib", "PosixPath", text("runs")))), "ok", ""
    yield "good-twice", "P6", tup(namespace(("a", num(1))), namespace(("b", num(2)))), "ok", ""


def hidden():
    """Tensors that nothing but an opaque value holds, where the child would lack them."""
    inside = "inside `argparse.Namespace`"
    yield "tensor-in-a-namespace", "P11", namespace(("w", tensor())), UNSUPPORTED, inside
    yield "tensor-in-a-list-in-a-namespace", "P11", namespace(("w", b"](" + tensor() + tensor() + b"e")), UNSUPPORTED, "2 tensors"
    yield "storage-in-a-namespace", "P11", namespace(("w", storage())), UNSUPPORTED, inside
    array = call("numpy.core.multiarray", "_reconstruct", glob("numpy", "ndarray"), tup(num(0)), b"C\x01b")
    yield "array-among-tensors", "P11", array, UNSUPPORTED, "numpy array"


def whole_files():
    model = pairs(("w", tensor()))
    items = glob("collections", "defaultdict") + tup(b"N") + b"R" + text("w") + tensor() + b"s"
    cases = [
        ("only-in-a-defaultdict", pairs(("model", items)), "NoStateDict", "collections.defaultdict"),
        ("model-and-average", pairs(("model", model), ("model_ema", model)), "SeveralStateDicts", "FILE::model"),
        ("optimizer-alone", pairs(("optimizer", model)), "NoStateDict", "optimizer"),
        ("average-in-a-tree", pairs(("a", pairs(("b", pairs(("w", tensor()))), ("c", pairs(("w", tensor())))))), "SeveralStateDicts", "`a.b`"),
    ]
    for slug, value, rule, says in cases:
        yield f"p11-left-{slug}", "P11", slug.replace("-", " "), stored(whole(value)), rule, says
    deep = b"N"
    for _ in range(70):
        deep = NAMESPACE + b")\x81}" + text("a") + deep + b"sb"
    yield "p12-left-nested", "P12", "seventy namespaces in each other", stored(state_dict(("x", deep), ("w", tensor()))), "PickleLimit", "deep"
    state = b"}q\x02(" + b"K\x01N" * 2000 + b"u0"
    again = NAMESPACE + b"q\x010" + state + b"h\x01)\x81h\x02b0" * 2000 + model
    yield "p12-left-one-state", "P12", "one large state for two thousand objects", stored(whole(again)), "PickleLimit", "state"

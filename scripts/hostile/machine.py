"""Rows P6, P7, P8 and P12 of docs/reliability.md: opcodes, confusion, broken streams, resources."""

from . import carriers
from .carriers import packed, stored
from .opcodes import CANARY, HOOKS, call, glob, num, pairs, state_dict, storage, tensor, text, tup, whole

W = pairs(("w", tensor()))
TOUCH = text(f"touch {CANARY}")


def rows():
    """As in gadgets."""
    yield from opcodes()
    yield from confusion()
    yield from broken()
    yield from resources()


def opcodes():
    forbidden, pickle, unsupported = "ForbiddenGlobal", "Pickle", "Unsupported"
    ordered = glob("collections", "OrderedDict")
    cases = [
        ("inst-allowed-name", b"(icollections\nOrderedDict\n", forbidden, "OrderedDict"),
        ("obj", b"(" + ordered + b"o", pickle, "Obj"),
        ("obj-then-pop", b"(" + glob("os", "system") + TOUCH + b"o0" + W, forbidden, "os.system"),
        ("obj-of-text", b"(" + TOUCH + b"o0" + W, pickle, "Obj"),
        ("newobj-forbidden", glob("subprocess", "Popen") + tup(TOUCH) + b"\x81", forbidden, "Popen"),
        ("newobj-rebuild", glob("torch._utils", "_rebuild_tensor_v2") + tup() + b"\x81", unsupported, "new object"),
        ("newobj-storage-class", glob("torch", "FloatStorage") + tup(num(6)) + b"\x81", unsupported, "FloatStorage"),
        ("newobj-ex-keywords", ordered + b")" + pairs(("a", b"N")) + b"\x92", pickle, "keyword"),
        ("newobj-ex-forbidden", glob("os", "system") + b")}\x92", forbidden, "os.system"),
        ("ext1", b"\x82\x01", pickle, "Ext1"), ("ext2", b"\x83\x01\x00", pickle, "Ext2"),
        ("ext4", b"\x84\x01\0\0\0", pickle, "Ext4"), ("ext4-negative", b"\x84\xff\xff\xff\xff", pickle, "Ext4"),
        ("persid-text", b"P0\n", pickle, "PersId"),
        ("frozenset", b"(K\x01\x91", pickle, "FrozenSet"), ("next-buffer", b"\x97", pickle, "NextBuffer"),
        ("readonly-buffer", b"N\x98", pickle, "ReadOnlyBuffer"),
        ("reduce-text", text("os.system") + tup(TOUCH) + b"R", pickle, "function"),
        ("reduce-tuple", tup(TOUCH) + tup(TOUCH) + b"R", pickle, "function"),
        ("reduce-dict", b"})R", pickle, "function"),
        ("reduce-result", HOOKS + b")R", pickle, "function"),
        ("reduce-list-arguments", ordered + b"]R", pickle, "arguments"),
        ("reduce-storage-class", glob("torch", "FloatStorage") + tup(num(6)) + b"R", unsupported, "FloatStorage"),
        ("reduce-dtype", glob("torch", "float16") + b")R", unsupported, "float16"),
        ("reduce-ordered-dict-of-text", ordered + tup(text("ab")) + b"R", pickle, "pairs"),
        ("reduce-size-of-two", glob("torch", "Size") + tup(b")", b")") + b"R", pickle, "Size"),
        ("build-setstate", HOOKS + pairs(("__setstate__", glob("os", "system"))) + b"b", forbidden, "os.system"),
        ("build-setstate-plain", HOOKS + pairs(("__setstate__", b"N")) + b"b", unsupported, "__setstate__"),
        ("build-dict", HOOKS + pairs(("__dict__", b"}")) + b"b", unsupported, "__dict__"),
        ("build-class", HOOKS + pairs(("__class__", b"N")) + b"b", unsupported, "__class__"),
        ("build-of-tensor", tensor() + pairs(("_metadata", b"N")) + b"b", unsupported, "state"),
        ("build-of-plain-dict", b"}" + pairs(("_metadata", b"N")) + b"b", unsupported, "state"),
        ("build-of-global", ordered + pairs(("__init__", b"N")) + b"b", unsupported, "state"),
        ("build-slots", HOOKS + tup(b"N", pairs(("a", b"N"))) + b"b", unsupported, "state"),
        ("build-text-state", HOOKS + text("x") + b"b", unsupported, "state"),
    ]
    for name, value, rule, says in cases:
        yield f"p6-{name}", "P6", f"{name.replace('-', ' ')}", stored(whole(value)), rule, says
    for name, value, rule, says in cases[:6]:
        yield (f"p6-{name}-legacy", "P6", f"{name.replace('-', ' ')} in a legacy file",
               carriers.legacy(4, whole(value)), rule, says)


def confusion():
    pickle, forbidden = "Pickle", "ForbiddenGlobal"
    system = glob("os", "system")
    cases = [
        ("memo-aliased-global", glob("collections", "OrderedDict") + b"q\x000" + system + b"q\x000h\x00", forbidden, "os.system"),
        ("memo-overwritten", glob("collections", "OrderedDict") + b"q\x00" + system + b"q\x00", forbidden, "os.system"),
        ("memo-missing", b"h\x05", pickle, "memo slot"), ("memo-missing-long", b"j\xff\xff\xff\xff", pickle, "memo slot"),
        ("memo-missing-text", b"g7\n", pickle, "memo slot"), ("memo-text-of-letters", b"gabc\n", pickle, "memo slot"),
        ("memo-negative", b"N" + b"p-1\n", pickle, "memo slot"), ("memo-empty-stack", b"q\x00", pickle, "stack"),
        ("memo-beyond-32-bits", b"Np4294967296\n", pickle, "memo slot"),
        ("memoized-text-called", text("os") + b"q\x000h\x00)R", pickle, "function"),
        ("stack-global-of-numbers", num(1) + num(2) + b"\x93", pickle, "as text"),
        ("stack-global-of-bytes", b"C\x02osC\x06system\x93", pickle, "as text"),
        ("stack-global-of-tuple", tup(text("os")) + text("system") + b"\x93", pickle, "as text"),
        ("stack-global-memoized", text("os") + b"\x94" + text("system") + b"\x93", forbidden, "os.system"),
        ("stack-global-alone", text("system") + b"\x93", pickle, "stack"),
        ("frame-past-the-end", b"\x95" + (1 << 40).to_bytes(8, "little") + W, pickle, "bytes"),
        ("frame-of-2-63", b"\x95" + (1 << 63).to_bytes(8, "little") + W, pickle, "bytes"),
        ("frame-hides-a-global", b"\x95\x02" + bytes(7) + b"Nc" + b"os\nsystem\n", forbidden, "os.system"),
        ("unknown-opcode", b"\xee" + W, pickle, "byte 0xee"), ("unknown-opcode-zero", b"\x00" + W, pickle, "byte 0x00"),
        ("protocol-6", b"\x80\x06" + W, pickle, "protocol"), ("protocol-255-inside", b"N0\x80\xff" + W, pickle, "protocol"),
        ("name-not-utf8", glob(b"o\xff", b"system"), forbidden, ""),
        ("name-carriage-return", glob("torch\r", "Size"), forbidden, "torch\\r"),
        ("name-trailing-blank", glob("torch._utils", "_rebuild_tensor_v2 "), forbidden, "_v2 "),
        ("name-nul", glob("torch\0", "Size"), forbidden, ""), ("name-empty", glob("", ""), forbidden, ""),
        ("name-homoglyph", glob("torch._utils", "_rebuild_tens\u043er_v2"), forbidden, ""),
        ("name-full-width", glob("\uff54orch", "FloatStorage"), forbidden, ""),
        ("name-combining", glob("torch", "FloatStorage\u0301"), forbidden, ""),
        ("name-escape-codes", glob("\x1b[2J\x1b[31m", "error: none"), forbidden, "\\u{1b}"),
        ("name-right-to-left", glob("\u202esys.so", "x"), forbidden, "\\u{202e}"),
        ("name-of-a-megabyte", glob("a" * 1500, "b"), forbidden, "…"),
        ("no-newline-in-global", b"ctorch", pickle, "bytes"),
        ("empty-at-stop", b"", pickle, "stack"), ("two-at-stop", b"N" + W, pickle, "one value"),
        ("mark-at-stop", b"(" + W, pickle, "one value"), ("only-a-mark", b"(", pickle, "stack"),
        ("pop-of-nothing", b"0" + W, pickle, "stack"), ("pop-mark-of-nothing", b"1" + W, pickle, "mark"),
        ("dup-of-nothing", b"2", pickle, "stack"), ("tuple-without-mark", b"t", pickle, "mark"),
        ("tuple3-of-two", b"NN\x87", pickle, "tuple"), ("setitem-short", b"}Ns", pickle, ""),
        ("setitems-odd", b"}(NNNu", pickle, "odd"), ("setitems-on-list", b"](NNu", pickle, "dict"),
        ("append-to-tuple", b")Na", pickle, "list"), ("appends-to-dict", b"}(Ne", pickle, "list"),
        ("additems-to-list", b"](N\x90", pickle, "set"), ("dict-odd", b"(Nd", pickle, "odd"),
        ("text-not-utf8", b"X\x02\0\0\0\xff\xfe", pickle, "UTF-8"),
        ("text-lone-surrogate", b"X\x03\0\0\0\xed\xa0\x80", pickle, "UTF-8"),
        ("text-overlong", b"X\x02\0\0\0\xc0\xaf", pickle, "UTF-8"),
        ("unicode-bad-escape", b"V\\u12\n", pickle, "escape"), ("string-unquoted", b"Sabc\n", pickle, "quoted"),
        ("string-open-quote", b"S'abc\n", pickle, "quoted"), ("int-of-words", b"Iabc\n", pickle, "integer"),
        ("int-of-hex", b"I0x10\n", pickle, "integer"), ("float-of-words", b"Fabc\n", pickle, "float"),
        ("length-negative", b"T\xff\xff\xff\xff", pickle, "length"),
    ]
    for name, value, rule, says in cases:
        yield f"p7-{name}", "P7", name.replace("-", " "), stored(whole(value)), rule, says
    yield "p7-no-stop", "P7", "no STOP", stored(state_dict()[:-1]), pickle, "1 more byte"
    yield "p7-empty-pickle", "P7", "an empty data.pkl", stored(b""), pickle, "1 more byte"
    yield "p7-no-stop-legacy", "P7", "no STOP in a legacy file", carriers.legacy(4, carriers.legacy_object()[:-1]), None, ""


def broken():
    """The payload first, the stream broken later: nothing may have been run by then."""
    call_it = call("posix", "system", TOUCH)
    safe_start = pairs(("w", tensor()))
    ends = {"unknown-opcode": b"\xff", "cut-text": b"X\xff\xff\0\0ab", "no-stop": b"", "underflow": b"0000",
            "bad-frame": b"\x95" + b"\xff" * 8, "bad-utf8": b"X\x01\0\0\0\xff."}
    for name, end in ends.items():
        value = b"\x80\x04" + call_it + end
        yield f"p8-payload-then-{name}", "P8", f"os.system, then {name}", stored(value), "ForbiddenGlobal", "posix.system"
        value = b"\x80\x04" + safe_start + end
        yield f"p8-tensors-then-{name}", "P8", f"tensors, then {name}", stored(value), "Pickle", ""
    for name, end in list(ends.items())[:3]:
        yield (f"p8-legacy-payload-then-{name}", "P8", f"os.system, then {name}, as a legacy file's object",
               carriers.legacy(4, b"\x80\x02" + call_it + end), "ForbiddenGlobal", "posix.system")
    yield ("p8-bare-nullifai", "P8", "a bare pickle: payload, then garbage", b"\x80\x02" + call_it + b"\xff\xff",
           "ForbiddenGlobal", "posix.system")


def resources():
    limit, pickle = "PickleLimit", "Pickle"
    nested = b"N" + b"\x85" * 300
    laughs_get = b"]q\x00(NNNNNNNNNNe0" + b"".join(
        b"](" + (b"h" + bytes([level])) * 10 + b"eq" + bytes([level + 1]) + b"0" for level in range(12)) + b"h\x0c"
    dup = b"N" + b"2\x86" * 70
    cases = [
        ("tuples-nested", nested, limit, "deep"), ("dup-nested", dup, limit, "deep"),
        ("lists-nested", b"]" * 200 + b"a" * 199, limit, "deep"), ("dicts-nested", b"}K\x01" * 100 + b"}" + b"s" * 100, limit, "deep"),
        ("marks", b"(" * 1000, limit, "marks"),
        ("text-of-2-63", b"\x8d" + (1 << 63).to_bytes(8, "little") + b"abc", pickle, "bytes"),
        ("text-of-2-64", b"\x8d" + b"\xff" * 8 + b"abc", pickle, "bytes"),
        ("text-of-4-gib", b"X\xff\xff\xff\xffabc", pickle, "bytes"),
        ("bytes-of-2-63", b"\x8e" + (1 << 63).to_bytes(8, "little"), pickle, "bytes"),
        ("bytearray-of-2-62", b"\x96" + (1 << 62).to_bytes(8, "little"), pickle, "bytes"),
        ("bytes-of-4-gib", b"B\xff\xff\xff\xff", pickle, "bytes"),
        ("long-of-1-gib", b"\x8b\0\0\0\x40", pickle, "bytes"), ("long-of-2-gib", b"\x8b\xff\xff\xff\x7f", pickle, "bytes"),
        ("string-of-2-gib", b"T\xff\xff\xff\x7f", pickle, "bytes"),
        ("laughs-by-get", laughs_get, "NoStateDict", ""),
        ("list-in-itself", b"]q\x00h\x00a", "NoStateDict", ""),
    ]
    for name, value, rule, says in cases:
        yield f"p12-{name}", "P12", name.replace("-", " "), stored(whole(value, 4)), rule, says
        yield (f"p12-{name}-legacy", "P12", f"{name.replace('-', ' ')} in a legacy file",
               carriers.legacy(4, whole(value, 4)), {pickle: "Truncated", "NoStateDict": "Legacy"}.get(rule, rule), says)
    view = tensor(storage("0", 6), 0, (1 << 42,), (0,))
    yield ("p12-zero-stride", "P12", "a view of 2^42 elements over six", stored(state_dict(("w", view))), "merge", "expanded view")
    for name, unit, count in [("marks", b"(", 10**7), ("tuples", b"N" + b"\x85" * 99, 10**5), ("lists", b"]", 10**7),
                              ("dicts", b"}", 10**7), ("none", b"N", 10**7)]:
        value = b"\x80\x04" + unit * count + b"."
        yield (f"p12-10-million-{name}", "P12", f"ten million {name}, deflated to some kilobytes", packed(value), "PickleLimit", "")
    yield ("p12-laughs-by-dup", "P12", "two hundred tuples of the same tuple twice", stored(whole(b"N" + b"2\x86" * 60 + b"0" + W)), "ok", "")

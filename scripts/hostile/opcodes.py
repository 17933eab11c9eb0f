"""Pickles byte by byte: what pickletools calls the opcodes, and what torch builds of them."""

CANARY = "hostile-canary"  # what a payload would touch, in the directory where the tool runs


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def num(value):
    if 0 <= value < 256:
        return b"K" + bytes([value])
    length = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([length]) + value.to_bytes(length, "little", signed=True)


def glob(module, name):
    raw = [part if isinstance(part, bytes) else part.encode() for part in (module, name)]
    return b"c" + raw[0] + b"\n" + raw[1] + b"\n"


def stack_glob(module, name):
    return text(module) + text(name) + b"\x93"


def tup(*items):
    return b"(" + b"".join(items) + b"t"


def call(module, name, *arguments):
    return glob(module, name) + tup(*arguments) + b"R"


def storage(key="0", numel=6, cls="FloatStorage", view=b"", module="torch", location="cpu"):
    key = text(key) if isinstance(key, str) else key
    numel = num(numel) if isinstance(numel, int) else numel
    return tup(text("storage"), glob(module, cls), key, text(location), numel, view) + b"Q"


def ints(values):
    return tup(*(num(value) if isinstance(value, int) else value for value in values))


HOOKS = call("collections", "OrderedDict")


def tensor(store=None, offset=0, size=(2, 3), stride=(3, 1)):
    """_rebuild_tensor_v2 over a storage, by default float32 [2, 3] over storage `0`."""
    store = storage() if store is None else store
    offset = num(offset) if isinstance(offset, int) else offset
    size, stride = (part if isinstance(part, bytes) else ints(part) for part in (size, stride))
    return call("torch._utils", "_rebuild_tensor_v2", store, offset, size, stride, b"\x89", HOOKS)


def pairs(*items):
    return b"}(" + b"".join(text(key) + value for key, value in items) + b"u"


def whole(value, protocol=2):
    return b"\x80" + bytes([protocol]) + value + b"."


def state_dict(*items):
    """A pickle of a dict of tensors and what else is given."""
    return whole(pairs(*(items or (("w", tensor()),))))


SIX_FLOATS = bytes.fromhex("00000000 0000803f 00000040 00004040 00008040 0000a040")

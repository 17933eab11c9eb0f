"""Cases that are too large to keep: made when they are needed, from a recipe.

    {"repeat": [[HEX, COUNT], ...]}     a file: each piece so many times
    {"entries": COUNT}                  an archive of so many empty entries behind a good checkpoint
    {"names": COUNT}                    one tensor of 64 dimensions under so many names
    {"mentions": COUNT}                 a legacy file that mentions so many storages
"""

import struct

from .carriers import KEYS, MAGIC, PROTOCOL, STORAGES, SYS_INFO, body, end_record, entries, stored, zip64_end
from .opcodes import glob, storage, tensor, text

RECIPES = {"repeat", "entries", "names", "mentions"}
LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")


def content(recipe):
    """The bytes of a recipe."""
    if "repeat" in recipe:
        return b"".join(bytes.fromhex(piece) * count for piece, count in recipe["repeat"])
    if "names" in recipe:
        shown = tensor(storage("0", 6), 0, (1,) * 64, (1,) * 64) + b"\x940}("
        return stored(b"\x80\x04" + shown + b"".join(b"\x8c\x06%06xh\0" % name for name in range(recipe["names"])) + b"u.")
    if "mentions" in recipe:
        words = text("storage") + b"\x940" + glob("torch", "FloatStorage") + b"\x940" + text("cpu") + b"\x940"
        each = (b"(h\0h\1J" + number.to_bytes(4, "little") + b"h\2K\1NtQ0" for number in range(recipe["mentions"]))
        return MAGIC + PROTOCOL + SYS_INFO + b"\x80\x04" + words + b"".join(each) + b"}." + KEYS + STORAGES
    names = [b"x/e%d" % number for number in range(recipe["entries"])]
    good, good_directory = body(entries())
    out, directory, offset = [good], [good_directory], len(good)
    for name in names:
        out.append(LOCAL.pack(b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0) + name)
        directory.append(CENTRAL.pack(b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0, 0, 0, 0, 0, offset) + name)
        offset += LOCAL.size + len(name)
    listed = b"".join(directory)
    count = len(names) + 3
    end = zip64_end(count, len(listed), offset, offset + len(listed)) + end_record(count, len(listed), offset)
    return b"".join(out) + listed + end


def rows():
    """As in gadgets, with a recipe in place of the bytes."""
    head = MAGIC + PROTOCOL + SYS_INFO + b"\x80\x04"
    tail = b"." + KEYS + STORAGES
    for name, unit, count in [("marks", b"(", 10**8), ("tuples", b"\x85", 10**7), ("lists", b"]", 10**7), ("dicts", b"}", 10**7),
                              ("none", b"N", 10**7), ("memo", b"N\x94", 10**7), ("names", b"ctorch\nSize\n", 10**6), ("odd-slots", b"Nr\xff\xff\xff\xff", 10**6)]:
        start = head + (b"N" if name == "tuples" else b"")
        recipe = {"repeat": [[start.hex(), 1], [unit.hex(), count], [tail.hex(), 1]]}
        yield f"p12-stream-of-{name}", "P12", f"{count:,} {name} in a legacy file", recipe, "PickleLimit", ""
    # What training programs leave beside the weights, a million in each other and side by side.
    named = head + glob("argparse", "Namespace") + b"\x94"
    for name, pieces in [("nested-namespaces", [[b"h\0)\x81", 10**6], [b"b", 10**6]]), ("namespaces", [[b"0](", 1], [b"h\0)\x81}b", 10**6], [b"e", 1]])]:
        recipe = {"repeat": [[named.hex(), 1], *([piece.hex(), count] for piece, count in pieces), [tail.hex(), 1]]}
        yield f"p12-stream-of-{name}", "P12", f"a million {name} in a legacy file", recipe, "PickleLimit", ""
    # One list of pairs becomes an OrderedDict again and again: 800 kB for five bytes.
    pairs = [[(head + glob("collections", "OrderedDict") + b"\x940](").hex(), 1], [b"NN\x86".hex(), 10**5], [b"e\x85\x940".hex(), 1]]
    recipe = {"repeat": [*pairs, [b"h\0h\1R0".hex(), 10**4], [(b"N" + tail).hex(), 1]]}
    yield "p12-ordered-dicts-of-one-list", "P12", "one list of pairs as ten thousand dicts", recipe, "PickleLimit", ""
    yield "p12-a-tensor-of-many-names", "P12", "a tensor of 64 dimensions under 400,000 names", {"names": 400_000}, "PickleLimit", ""
    yield "p12-storages-without-tensors", "P12", "300,000 storages that no tensor uses", {"mentions": 300_000}, "PickleLimit", ""
    # Headers of safetensors: a length, what is repeated, an end.
    for name, what, start, unit, count, end, rule in [
        ("nested", "an entry of 100,000 arrays in each other", b'{"w":{"x":', b"[", 100_000, b"]" * 100_000 + b"}}", "SafetensorsHeader"),
        ("nested-open", "100,000 arrays that are not closed", b'{"w":', b"[", 100_000, b"", "SafetensorsHeader"),
        ("dimensions", "ten million dimensions", b'{"w":{"shape":[', b"0,", 10**7, b"0]}}", "SafetensorsHeader"),
        ("entries", "four million entries", b"{", b'"w":{},', 4 * 10**6, b'"w":{}}', "SafetensorsHeader"),
        ("blanks", "a header of 60 MB of blanks", b"{", b" ", 60 * 10**6, b"", "SafetensorsHeader"),
    ]:
        length = (len(start) + len(unit) * count + len(end)).to_bytes(8, "little")
        recipe = {"repeat": [[(length + start).hex(), 1], [unit.hex(), count], [end.hex(), 1]]}
        yield f"s-{name}", "S", what, recipe, rule, ""
    yield "z13-a-million-entries", "Z13", "a million empty entries", {"entries": 10**6}, "ZipStructure", "131072 entries"

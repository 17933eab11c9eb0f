"""Cases that are too large to keep: made when they are needed, from a recipe.

    {"repeat": [[HEX, COUNT], ...]}     a file: each piece so many times
    {"entries": COUNT}                  an archive of so many empty entries behind a good checkpoint
"""

import struct

from .carriers import KEYS, MAGIC, PROTOCOL, STORAGES, SYS_INFO, body, end_record, entries, zip64_end

LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")


def content(recipe):
    """The bytes of a recipe."""
    if "repeat" in recipe:
        return b"".join(bytes.fromhex(piece) * count for piece, count in recipe["repeat"])
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
    head = (MAGIC + PROTOCOL + SYS_INFO + b"\x80\x04").hex()
    tail = (b"." + KEYS + STORAGES).hex()
    for name, unit, count in [("marks", b"(", 10**8), ("tuples", b"\x85", 10**7), ("lists", b"]", 10**7), ("dicts", b"}", 10**7),
                              ("none", b"N", 10**7), ("memo", b"N\x94", 10**7), ("names", b"ctorch\nSize\n", 10**6), ("odd-slots", b"Nr\xff\xff\xff\xff", 10**6)]:
        start = head + ("4e" if name == "tuples" else "")
        recipe = {"repeat": [[start, 1], [unit.hex(), count], [tail, 1]]}
        yield f"p12-stream-of-{name}", "P12", f"{count:,} {name} in a legacy file", recipe, "PickleLimit", ""
    yield "z13-a-million-entries", "Z13", "a million empty entries", {"entries": 10**6}, "ZipStructure", "131072 entries"

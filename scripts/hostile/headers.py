"""Row S of docs/reliability.md: the header of a safetensors file."""

import json
import struct

HEADER, DATA, NAME, SIZE, CUT = "SafetensorsHeader", "SafetensorsData", "TensorName", "StorageSize", "Truncated"


def file(header, data=b""):
    """A file of this header, bytes or what JSON is made of, and this data."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


def one(name="w", dtype="F32", shape=(1,), offsets=(0, 4), data=4, **more):
    """A file of one tensor of float32, or what is given."""
    entry = {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}
    return file({name: entry}, bytes(data))


def two(first, second, data):
    offsets = {"a": first, "b": second}
    return file({name: {"dtype": "F32", "shape": [1], "data_offsets": of} for name, of in offsets.items()}, bytes(data))


def twice(name, other):
    tensor = b'{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}'
    return file(b'{"%s":%s,"%s":%s}' % (name, tensor % (0, 4), other, tensor % (4, 8)), bytes(8))


def rows():
    """As in gadgets."""
    length = lambda n: struct.pack("<Q", n) + b"{}"  # noqa: E731
    metadata = lambda value: file({"__metadata__": value})  # noqa: E731
    cases = [
        ("length-2-62", "a length of 2^62", length(1 << 62), HEADER, "at most 100000000"),
        ("length-all-ones", "a length of 2^64 - 1", length((1 << 64) - 1), HEADER, "at most 100000000"),
        ("length-above-limit", "a length above the library's limit", length(100_000_001), HEADER, "at most 100000000"),
        ("length-beyond-file", "a header longer than the file", length(50_000_000), CUT, "download"),
        ("length-short", "a length that cuts the header", length(1), HEADER, ""),
        ("cut-header", "a file cut in its header", one()[:30], CUT, "download"),
        ("cut-data", "a file cut in its data", one()[:-1], CUT, "download"),
        ("trailing", "a byte behind the data", one() + b"\0", DATA, ""),
        ("no-json", "a header that is no JSON", file(b"{w:1}"), HEADER, ""),
        ("two-objects", "two objects", file(b"{}{}"), HEADER, "trailing"),
        ("not-utf8", "a header that is no UTF-8", file(b'{"\xff":{}}'), HEADER, "UTF-8"),
        ("zeros-behind", "a header padded with zeros", file(b"{}\0\0\0\0\0\0"), HEADER, ""),
        ("no-fields", "an entry without fields", file({"w": {}}), HEADER, "missing field"),
        ("null-entry", "an entry that is null", file({"w": None}), HEADER, ""),
        ("array-entry", "an entry that is an array", file({"w": ["F32", [1], [0, 4]]}, bytes(4)), HEADER, "an array"),
        ("unknown-field", "an entry with strides", one(strides=[1]), HEADER, "unknown field"),
        ("overlap", "two tensors of the same bytes", two([0, 4], [0, 4], 4), DATA, "an overlap"),
        ("overlap-part", "two tensors that share bytes", two([0, 4], [2, 6], 6), DATA, "an overlap"),
        ("gap", "bytes between two tensors", two([0, 4], [8, 12], 12), DATA, "a gap"),
        ("gap-first", "bytes before the first tensor", one(offsets=(4, 8), data=8), DATA, "a gap"),
        ("reversed", "offsets that fall", one(offsets=(4, 0)), DATA, "rise"),
        ("negative-offset", "an offset below zero", one(offsets=(-4, 0)), HEADER, "-4"),
        ("fraction-offset", "an offset with a fraction", one(offsets=(0, 4.0)), HEADER, ""),
        ("offset-2-64", "an offset of 2^64", one(offsets=(0, 1 << 64)), HEADER, ""),
        ("offset-huge", "an offset of 2^64 - 1", one(offsets=(0, (1 << 64) - 1)), CUT, ""),
        ("three-offsets", "three offsets", one(offsets=(0, 4, 8), data=8), HEADER, ""),
        ("shape-short", "a shape of more bytes than there are", one(shape=(2,)), SIZE, "expected 8 bytes"),
        ("shape-overflow", "a shape whose product is 2^64", one(shape=(1 << 32, 1 << 32)), SIZE, ""),
        ("shape-times-size", "a shape whose bytes are 2^64", one(shape=(1 << 62,), offsets=(0, 0), data=0), SIZE, ""),
        ("shape-zero", "bytes of a shape without elements", one(shape=(0,)), SIZE, "expected 0 bytes"),
        ("shape-negative", "a size below zero", one(shape=(-1,)), HEADER, "-1"),
        ("shape-rank", "65 dimensions", one(shape=(1,) * 65), HEADER, "64 sizes"),
        ("dtype-unknown", "an unknown dtype", one(dtype="F7"), HEADER, "F7"),
        ("dtype-f4", "a dtype of half a byte", one(dtype="F4"), HEADER, "F4"),
        ("dtype-number", "a dtype that is a number", one(dtype=4), HEADER, ""),
        ("dtype-megabyte", "a dtype of 30,000 characters", one(dtype="F" * 30_000), HEADER, ""),
        ("name-twice", "a name that is there twice", twice(b"w", b"w"), NAME, "twice"),
        ("name-twice-escaped", "a name that is there twice, once escaped", twice(b"w", rb"\u0077"), NAME, "twice"),
        ("name-newline", "a name with a line break", one(name="a\nerror: none"), NAME, "printable"),
        ("name-escape-codes", "a name of escape codes", one(name="\x1b[2J"), NAME, "printable"),
        ("name-empty", "a name without characters", one(name=""), NAME, "printable"),
        ("metadata-list", "metadata that is a list", metadata([]), HEADER, "__metadata__"),
        ("metadata-number", "metadata with a number", metadata({"a": 1}), HEADER, "__metadata__"),
        ("metadata-object", "metadata with an object", metadata({"a": {}}), HEADER, "__metadata__"),
        ("metadata-twice", "two entries of metadata", file(b'{"__metadata__":{},"__metadata__":{}}'), NAME, "twice"),
    ]
    for slug, what, data, rule, says in cases:
        yield f"s-{slug}", "S", what, data, rule, says
    yield "s-good", "S", "a good file", one(), "ok", ""

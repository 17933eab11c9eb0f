"""Files around pickles: zip archives field by field, and the older format."""

import struct
import zlib

from .opcodes import SIX_FLOATS, state_dict, storage, tensor, pairs, whole


class Entry:
    """One entry of an archive. What is None follows from the others; `c_` is the directory's side."""

    def __init__(self, name, data, **fields):
        self.name = name.encode() if isinstance(name, str) else name
        self.data = data
        self.method, self.flags, self.crc, self.size, self.packed = 0, 0, None, None, None
        self.extra, self.behind, self.shift, self.disk, self.attributes = b"", b"", 0, 0, 0
        self.l_name = self.l_method = self.l_flags = self.l_crc = self.l_size = self.l_packed = None
        self.c_extra = b""
        self.in_directory = True
        self.in_body = True
        for field, value in fields.items():
            if not hasattr(self, field):
                raise AttributeError(field)
            setattr(self, field, value)


def raw_deflate(data):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def deflated(name, data, **fields):
    """An entry of deflated data."""
    fields = {"method": 8, "size": len(data), "crc": zlib.crc32(data), **fields}
    return Entry(name, raw_deflate(data), **fields)


def end_record(count, size, offset, comment=b"", disk=0):
    return struct.pack(
        "<4s4H2IH", b"PK\5\6", disk, disk, min(count, 65535), min(count, 65535),
        min(size, 2**32 - 1), min(offset, 2**32 - 1), len(comment),
    ) + comment


def zip64_end(count, size, offset, at, **fields):
    """The zip64 end record and its locator, to stand at `at`."""
    values = {"length": 44, "disk": 0, "here": count, "count": count, "size": size,
              "offset": offset, "at": at, "disks": 1, **fields}
    return struct.pack(
        "<4sQHHIIQQQQ", b"PK\6\6", values["length"], 45, 45, values["disk"], 0, values["here"],
        values["count"], values["size"], values["offset"],
    ) + struct.pack("<4sIQI", b"PK\6\7", 0, values["at"], values["disks"])


def body(entries):
    """Local headers with their data, and the directory."""
    out, directory = b"", b""

    def first(value, otherwise):
        return otherwise if value is None else value

    for entry in entries:
        packed = first(entry.packed, len(entry.data))
        size = first(entry.size, len(entry.data))
        crc = first(entry.crc, zlib.crc32(entry.data))
        offset = len(out)
        if entry.in_body:
            name = first(entry.l_name, entry.name)
            out += struct.pack(
                "<4s5H3I2H", b"PK\3\4", 20, first(entry.l_flags, entry.flags),
                first(entry.l_method, entry.method), 0, 0, first(entry.l_crc, crc),
                first(entry.l_packed, packed) & 0xFFFFFFFF, first(entry.l_size, size) & 0xFFFFFFFF,
                len(name), len(entry.extra),
            ) + name + entry.extra + entry.data + entry.behind
        if entry.in_directory:
            directory += struct.pack(
                "<4s6H3I5H2I", b"PK\1\2", 20, 20, entry.flags, entry.method, 0, 0, crc,
                packed & 0xFFFFFFFF, size & 0xFFFFFFFF, len(entry.name), len(entry.c_extra), 0,
                entry.disk, 0, entry.attributes, (offset + entry.shift) & 0xFFFFFFFF,
            ) + entry.name + entry.c_extra
    return out, directory


def archive(entries, behind=b"", comment=b"", **end):
    out, directory = body(entries)
    count = sum(entry.in_directory for entry in entries)
    values = {"count": count, "size": len(directory), "offset": len(out), "disk": 0, **end}
    return out + directory + end_record(comment=comment, **values) + behind


def entries(pickle=None, data=SIX_FLOATS):
    """The entries of a small checkpoint."""
    pickle = state_dict() if pickle is None else pickle
    return [Entry("x/data.pkl", pickle), Entry("x/data/0", data), Entry("x/version", b"3\n")]


def stored(pickle):
    """A checkpoint with this data.pkl."""
    return archive(entries(pickle))


def packed(pickle):
    """The same, deflated."""
    parts = [("x/data.pkl", pickle), ("x/data/0", SIX_FLOATS), ("x/version", b"3\n")]
    return archive([deflated(name, data) for name, data in parts])


def second_pickle(pickle):
    """A good checkpoint with this pickle beside data.pkl."""
    return archive(entries() + [Entry("x/more.pkl", pickle)])


MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
PROTOCOL = whole(b"M\xe9\x03")
SYS_INFO = whole(pairs(("protocol_version", b"M\xe9\x03"), ("little_endian", b"\x88")))
KEYS = whole(b"](" + b"X\x01\0\0\0" + b"0e")
STORAGES = (6).to_bytes(8, "little") + SIX_FLOATS


def legacy_object():
    return state_dict(("w", tensor(storage(view=b"N"))))


def legacy(position=0, pickle=b"", **parts):
    """A file of the older format; `pickle` in place of the 1st to 5th pickle."""
    values = {"magic": MAGIC, "protocol": PROTOCOL, "sys_info": SYS_INFO,
              "object": legacy_object(), "keys": KEYS, "storages": STORAGES, **parts}
    if position:
        values[list(values)[position - 1]] = pickle
    return b"".join(values.values())

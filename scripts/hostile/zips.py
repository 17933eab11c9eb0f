"""Rows Z of docs/reliability.md: archives whose headers, directory and end records lie."""

import struct
import zlib

from .carriers import Entry, archive, body, deflated, end_record, entries, raw_deflate, zip64_end
from .opcodes import SIX_FLOATS, state_dict, storage, tensor

STRUCTURE, OVERLAP, UNSUPPORTED, INFLATE = "ZipStructure", "ZipOverlap", "ZipUnsupported", "Inflate"


def changed(position=1, **fields):
    """The good archive with fields of one entry changed; entry 1 is the storage."""
    parts = entries()
    for field, value in fields.items():
        if not hasattr(parts[position], field):
            raise AttributeError(field)
        setattr(parts[position], field, value)
    return archive(parts)


def added(name, data=b"", **fields):
    return archive(entries() + [Entry(name, data, **fields)])


def rows():
    """As in gadgets."""
    yield from headers()
    yield from ends()
    yield from contents()
    yield from cuts()


def headers():
    crc = zlib.crc32(SIX_FLOATS)
    for position, what in [(0, "pickle"), (1, "storage")]:
        for field, value in [("l_name", b"x/data/9"), ("l_name", b""), ("l_method", 8), ("l_size", 23), ("l_packed", 25),
                             ("l_crc", 1), ("l_flags", 0x800), ("l_flags", 1), ("l_flags", 8)]:
            slug = f"z1-{what}-{field[2:]}-{len(value) if isinstance(value, bytes) else value}"
            yield slug, "Z1", f"local header's {field[2:]} differs ({what})", changed(position, **{field: value}), STRUCTURE, ""
    yield "z1-central-size", "Z1", "directory's size is one more", changed(size=25, l_size=24), STRUCTURE, "sizes"
    yield "z1-extra-too-long", "Z1", "local extra field runs into the data", changed(extra=b"FB\xff\0"), STRUCTURE, ""
    yield "z1-zip64-lies", "Z1", "zip64 field of the local header lies", changed(extra=struct.pack("<HHQ", 1, 8, 99)), STRUCTURE, ""
    yield "z2-only-in-directory", "Z2", "an entry that has no local header", added("x/more", in_body=False), OVERLAP, ""
    yield "z2-only-in-body", "Z2", "an entry that the directory lacks", added("x/more", b"abc", in_directory=False), STRUCTURE, ""
    hidden = entries()
    hidden.insert(0, Entry("x/data.pkl", state_dict(), in_directory=False))
    yield "z2-pickle-only-in-body", "Z2", "a first data.pkl that the directory lacks", archive(hidden), STRUCTURE, "byte 0"
    for slug, name in [("same", "x/data/0"), ("case", "X/DATA/0"), ("case-pickle", "x/Data.pkl"), ("folder", "x/data/0/"), ("kelvin", "x/data/\u212a")]:
        data = archive(entries() + [Entry("x/data/k", b""), Entry(name, b"")])
        yield f"z3-{slug}", "Z3", f"two names that fold to one: {name}", data, OVERLAP, "again"
    for slug, name in [("dot", "./x/data/0"), ("inner-dot", "x/./data/0"), ("two-slashes", "x//data/0")]:
        yield f"z3-{slug}", "Z3", f"a name with a {slug}", added(name), STRUCTURE, "component"
    yield "z4-one-header-twice", "Z4", "two entries of one local header", added("x/data/1", in_body=False, shift=-89), OVERLAP, ""
    yield "z4-overlap", "Z4", "an entry inside the one before", changed(shift=-8), OVERLAP, ""
    yield "z4-into-directory", "Z4", "data that reach into the directory", changed(2, size=60, packed=60, l_size=60, l_packed=60), OVERLAP, ""
    yield "z4-stretched-over-next", "Z4", "an entry that claims the next one's bytes", changed(size=40, packed=40, l_size=40, l_packed=40), OVERLAP, ""
    yield "z4-behind-the-end", "Z4", "a header offset behind the file's end", changed(2, shift=1 << 30), STRUCTURE, ""
    gap = entries()
    gap[1].behind = b"0123456789"
    yield "z4-gap", "Z4", "bytes between two entries", archive(gap), STRUCTURE, "other bytes"
    for bit in (0, 5, 6, 13):
        flag = 1 << bit
        yield f"z7-flag-{bit}", "Z7", f"encryption flag {flag:#x}", changed(flags=flag), UNSUPPORTED, "encryption"
    yield "z7-flag-pickle", "Z7", "encryption flag of data.pkl", changed(0, flags=1), UNSUPPORTED, "encryption"
    for method in (1, 9, 12, 14, 93, 95, 99, 65535):
        yield f"z7-method-{method}", "Z7", f"method {method}", changed(method=method), UNSUPPORTED, f"method {method}"
    for slug, behind in [("missing", b""), ("short", b"PK\7\x08" + crc.to_bytes(4, "little")), ("wrong-crc", struct.pack("<4s3I", b"PK\7\x08", crc ^ 1, 24, 24)),
                         ("wrong-size", struct.pack("<4s3I", b"PK\7\x08", crc, 24, 25)), ("no-signature-wrong", struct.pack("<3I", 1, 24, 24)), ("17-bytes", bytes(17))]:
        yield f"z9-{slug}", "Z9", f"data descriptor: {slug.replace('-', ' ')}", changed(flags=8, behind=behind, l_size=0, l_packed=0, l_crc=0), STRUCTURE, "descriptor"
    yield "z9-unexpected", "Z9", "a data descriptor that no flag tells of", changed(behind=struct.pack("<4s3I", b"PK\7\x08", crc, 24, 24)), STRUCTURE, "next entry"
    yield "z6-entry-disk", "Z6", "an entry on disk 1", changed(disk=1), STRUCTURE, "disk"
    yield "z16-directory-with-bytes", "Z16", "a directory entry that has bytes", added("x/d/", b"abc"), STRUCTURE, "directory"
    yield "z16-symlink", "Z16", "an entry of symlink mode: nothing is ever extracted", added("x/link", b"/etc/passwd", attributes=0xA1FF0000), "ok", ""


def ends():
    out, directory = body(entries())
    count, size, offset = 3, len(directory), len(out)
    good = out + directory + end_record(count, size, offset)

    def with_end(end):
        return out + directory + end

    def wide(**fields):
        at = offset + size
        values = {"count": count, "size": size, "offset": offset, "at": at, **fields}
        narrow = end_record(count, size, offset)
        return out + directory + zip64_end(values.pop("count"), values.pop("size"), values.pop("offset"), values.pop("at"), **values) + narrow

    yield "z5-two-archives", "Z5", "two archives, one behind the other", good + good, STRUCTURE, ""
    yield "z5-end-twice", "Z5", "the end record twice", good + end_record(count, size, offset), STRUCTURE, ""
    yield "z5-archive-in-comment", "Z5", "an archive in the comment", with_end(end_record(count, size, offset, comment=good)), STRUCTURE, ""
    yield "z5-end-in-comment", "Z5", "an end record in the comment", with_end(end_record(count, size, offset, comment=end_record(0, 0, offset + size))), STRUCTURE, ""
    yield "z5-junk-before", "Z5", "bytes before the archive", b"junk" + good, "WrongKind", "behind other bytes"
    yield "z5-header-before", "Z5", "a local signature before the archive", b"PK\3\4" + good, STRUCTURE, ""
    yield "z5-shell-before", "Z5", "a shell script before the archive", b"#!/bin/sh\nexit\n" + good, "WrongKind", "behind other bytes"
    yield "z5-comment-longer-than-file", "Z5", "a comment that is not there", with_end(end_record(count, size, offset)[:-2] + b"\xff\xff"), "Truncated", "comment"
    yield "z5-far-end", "Z5", "more than 64 KiB behind the end record", good + bytes(1), "ok", ""
    for slug, fields in [("one-more", {"count": 4}), ("one-less", {"count": 2}), ("none", {"count": 0}), ("size", {"size": size - 1}),
                         ("offset", {"offset": offset + 1}), ("offset-0", {"offset": 0}), ("offset-ones", {"offset": 2**32 - 1}), ("disk", {"disk": 1})]:
        values = {"count": count, "size": size, "offset": offset, **fields}
        yield f"z6-end-{slug}", "Z6", f"end record: {slug.replace('-', ' ')}", with_end(end_record(**values)), STRUCTURE, ""
    for slug, fields in [("count", {"count": 4}), ("here", {"here": 2}), ("size", {"size": size + 1}), ("offset", {"offset": offset - 1}), ("disk", {"disk": 1}),
                         ("disks", {"disks": 2}), ("length", {"length": 45}), ("extensible", {"length": 44 + 1000}), ("at", {"at": 0}), ("at-2-63", {"at": 1 << 63}), ("size-2-63", {"size": 1 << 63})]:
        yield f"z6-zip64-{slug}", "Z6", f"zip64 end record: {slug}", wide(**fields), STRUCTURE, ""
    yield "z6-zip64-twice", "Z6", "a zip64 field with more than the entry lacks", changed(c_extra=struct.pack("<HHQ", 1, 8, 24)), STRUCTURE, "zip64"
    yield "z6-zip64-absent", "Z6", "ones in the directory and no zip64 field", changed(size=2**32 - 1, packed=2**32 - 1, l_size=24, l_packed=24), STRUCTURE, "zip64"
    yield "z6-zip64-2-63", "Z6", "a size of 2^63 in the zip64 field", changed(size=2**32 - 1, packed=2**32 - 1, c_extra=struct.pack("<HHQQ", 1, 16, 1 << 63, 1 << 63), l_size=24, l_packed=24), STRUCTURE, ""
    yield "z6-extra-broken", "Z6", "an extra field whose lengths don't add up", changed(c_extra=b"\x07\0\xff\0"), STRUCTURE, "extra"
    yield "z13-count-of-2-63", "Z13", "2^63 entries in few bytes", wide(count=1 << 63, here=1 << 63), STRUCTURE, ""


def contents():
    pickle = state_dict()
    parts = lambda name, data, **fields: archive([Entry("x/data.pkl", pickle), deflated(name, data, **fields), Entry("x/version", b"3\n")])  # noqa: E731
    yield "z8-claims-too-much", "Z8", "a gigabyte claimed from few bytes", parts("x/data/0", SIX_FLOATS, size=1 << 30), INFLATE, "1032"
    yield "z8-pickle-longer", "Z8", "a pickle that inflates to more than it claims", archive([deflated("x/data.pkl", pickle, size=len(pickle) - 1)] + entries()[1:]), INFLATE, "more"
    yield "z8-pickle-shorter", "Z8", "a pickle that inflates to less than it claims", archive([deflated("x/data.pkl", pickle, size=len(pickle) + 1)] + entries()[1:]), INFLATE, ""
    yield "z8-pickle-bomb", "Z8", "a pickle of 32 MiB from 32 kB", archive([deflated("x/data.pkl", bytes(32 << 20))] + entries()[1:]), "PickleLimit", ""
    yield "z8-pickle-ratio", "Z8", "a pickle claiming 1033 times its bytes", archive([deflated("x/data.pkl", pickle, size=200_000)] + entries()[1:]), INFLATE, "1032"
    yield "z8-garbage", "Z8", "a pickle that is no deflate data", archive([Entry("x/data.pkl", b"\xff" * 40, method=8, size=300, crc=1)] + entries()[1:]), INFLATE, ""
    packed = raw_deflate(pickle)
    yield "z8-cut", "Z8", "deflate data without their end", archive([Entry("x/data.pkl", packed[:-3], method=8, size=len(pickle), crc=zlib.crc32(pickle))] + entries()[1:]), INFLATE, ""
    yield "z8-continued", "Z8", "bytes behind the end of the deflate data", archive([Entry("x/data.pkl", packed + b"abc", method=8, size=len(pickle), crc=zlib.crc32(pickle))] + entries()[1:]), INFLATE, ""
    yield "z8-storage-longer", "Z8", "a storage that inflates to more than it claims", parts("x/data/0", SIX_FLOATS + bytes(8), size=24, crc=zlib.crc32(SIX_FLOATS)), "data", "more"
    yield "z8-storage-garbage", "Z8", "a storage that is no deflate data", archive([Entry("x/data.pkl", pickle), Entry("x/data/0", b"\xff" * 20, method=8, size=24, crc=1)]), "data", ""
    yield "z10-no-pickle", "Z10", "no data.pkl", archive(entries()[1:]), "MissingRecord", "data.pkl"
    yield "z10-pickle-at-top", "Z10", "data.pkl in no folder", archive([Entry("data.pkl", pickle)]), STRUCTURE, "one folder"
    yield "z10-pickle-too-deep", "Z10", "data.pkl two folders down", archive([Entry("a/b/data.pkl", pickle)]), STRUCTURE, "one folder"
    yield "z10-two-roots", "Z10", "two folders with a data.pkl each", added("y/data.pkl", pickle), STRUCTURE, "one pickle"
    yield "z10-storage-elsewhere", "Z10", "a second folder", added("y/data/0", SIX_FLOATS), STRUCTURE, "all entries"
    for slug, name in [("parent", "x/../../etc/cron.d/x"), ("absolute", "/etc/passwd"), ("backslash", "x\\..\\a"), ("nul", "x/data/0\0.txt"),
                       ("empty", ""), ("not-utf8", b"x/\xff\xfe"), ("drive", "C:\\a"), ("only-dots", "..")]:
        yield f"z10-name-{slug}", "Z10", f"a name that is {slug}", added(name), STRUCTURE, "name"
    yield "z10-pickle-upper", "Z10", "DATA.PKL for data.pkl", archive([Entry("x/DATA.PKL", pickle)] + entries()[1:]), STRUCTURE, "data.pkl"
    yield "z10-pickle-is-folder", "Z10", "data.pkl/ is a folder", archive([Entry("x/data.pkl/", b"")] + entries()[1:]), "MissingRecord", ""
    for slug, text in [("middle", b"middle"), ("newline", b"little\n"), ("empty", b""), ("upper", b"LITTLE"), ("long", b"little" * 10)]:
        yield f"z11-byteorder-{slug}", "Z11", f"byteorder: {slug}", added("x/byteorder", text), "ByteOrder", "byteorder"
    yield "z12-key-path", "Z12", "a storage key that is a path", archive(entries(state_dict(("w", tensor(storage("../../x")))))), "MissingRecord", "../../x"
    yield "z12-key-of-pickle", "Z12", "a storage key that leads to data.pkl", archive(entries(state_dict(("w", tensor(storage("../version")))))), "MissingRecord", ""
    yield "z15-pickle-crc", "Z15", "a wrong CRC-32 of data.pkl", changed(0, crc=1), "Checksum", "data.pkl"
    yield "z15-storage-crc", "Z15", "a wrong CRC-32 of a storage", changed(crc=1), "data", "damaged"
    yield "z15-no-crc", "Z15", "a CRC-32 of 0, never computed: accepted and noted", changed(crc=0), "ok", ""
    yield "z15-deflated-crc", "Z15", "a wrong CRC-32 of a deflated storage", parts("x/data/0", SIX_FLOATS, crc=1), "data", "damaged"


def cuts():
    whole = archive(entries())
    # Every byte is cut by a unit test; here, places of every kind.
    for length in [1, 3, 4, 20, 30, 40, len(whole) // 2, len(whole) - 100, len(whole) - 23, len(whole) - 22, len(whole) - 21, len(whole) - 1]:
        yield f"z14-cut-{length}", "Z14", f"cut after {length} bytes", whole[:length], "Empty" if length < 4 else "Truncated", ""

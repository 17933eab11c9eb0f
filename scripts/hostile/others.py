"""Row P10 of docs/reliability.md and row L1: other kinds of file, broken downloads, and the older
format."""

import gzip
import io
import struct
import tarfile
import zlib

from . import carriers
from .carriers import Entry, archive, legacy
from .opcodes import SIX_FLOATS, call, num, pairs, state_dict, storage, tensor, text, tup, whole


def rows():
    """As in gadgets."""
    yield from downloads()
    yield from older()


def tar(*names):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive_of:
        for name in names:
            archive_of.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
    return out.getvalue()


def gguf():
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + bytes(64)


def downloads():
    header = b'{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}'
    wrong, good = "WrongKind", archive(carriers.entries())
    cases = [
        ("lfs-pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9976570304\n", wrong, "git-LFS pointer"),
        ("lfs-pointer-crlf", b"version https://git-lfs.github.com/spec/v1\r\noid sha256:00\r\nsize 13\r\n", wrong, "git-LFS pointer"),
        ("lfs-pointer-hawser", b"version https://hawser.github.com/spec/v1\noid sha256:00\nsize 13\n", wrong, "git-LFS pointer"),
        ("xet-pointer", b"# xet version 0\nfilesize = 13\nhash = '00'\n", wrong, "Xet pointer"),
        ("html", b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n", wrong, "HTML page"),
        ("html-bom", b"\xef\xbb\xbf<html><body>Sign in</body></html>", wrong, "HTML page"),
        ("html-blank-first", b"\n\n   <html>\n</html>", wrong, "HTML page"), ("html-latin-1", b"<html><body>Acc\xe8s refus\xe9</body></html>", wrong, "HTML page"),
        ("html-utf16", "\ufeff<html></html>".encode("utf-16-le"), wrong, "UTF-16"),
        ("xml-error", b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>', wrong, "XML"),
        ("json-error", b'{"error":"Repository not found"}', wrong, "JSON file"), ("json-array", b'["Too many requests"]', wrong, "JSON file"),
        ("text-error", b"Entry not found", wrong, "text file"), ("text-401", b"Invalid username or password.", wrong, "text file"),
        ("text-short", b"404", "Empty", "3 bytes"), ("empty", b"", "Empty", "0 bytes"), ("one-byte", b"\x80", "Empty", "1 byte"),
        ("zeros", bytes(4096), wrong, "zeros"), ("gzip", gzip.compress(good, mtime=0), wrong, "gzip"), ("zlib", zlib.compress(good), "UnknownKind", ""),
        ("7z", b"7z\xbc\xaf\x27\x1c\0\4" + bytes(56), wrong, "7z"), ("rar", b"Rar!\x1a\7\1\0" + bytes(60), wrong, "RAR"),
        ("xz", b"\xfd7zXZ\0\0\4" + bytes(60), wrong, "xz"), ("zstd", b"\x28\xb5\x2f\xfd" + bytes(60), wrong, "zstd"), ("bzip2", b"BZh91AY&SY" + bytes(60), wrong, "bzip2"),
        ("lz4", b"\x04\x22\x4d\x18" + bytes(60), wrong, "lz4"),
        ("tar", tar("model.bin"), wrong, "tar"), ("tar-of-old-torch", tar("sys_info", "pickle", "tensors", "storages"), wrong, "tar"),
        ("npy", b"\x93NUMPY\1\0v\0{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }" + b" " * 50 + b"\n" + SIX_FLOATS, wrong, "numpy"),
        ("npz", archive([Entry("w.npy", b"\x93NUMPY" + bytes(70))]), wrong, "numpy"),
        ("png", b"\x89PNG\r\n\x1a\n" + bytes(60), wrong, "PNG"), ("jpeg", b"\xff\xd8\xff\xe0" + bytes(60), wrong, "JPEG"), ("gif", b"GIF89a" + bytes(60), wrong, "GIF"),
        ("pdf", b"%PDF-1.7\n" + bytes(60), wrong, "PDF"), ("elf", b"\x7fELF" + bytes(60), wrong, "program"), ("exe", b"MZ\x90\0" + bytes(60), wrong, "program"),
        ("safetensors", struct.pack("<Q", len(header)) + header + SIX_FLOATS, "ok", ""),
        ("safetensors-cut", struct.pack("<Q", 50_000) + header, "Truncated", "download"),
        ("gguf", gguf(), wrong, "GGUF"), ("ggml", b"lmgg" + bytes(60), wrong, "GGML"), ("hdf5", b"\x89HDF\r\n\x1a\n" + bytes(60), wrong, "HDF5"),
        ("onnx", b"\x08\x07\x12\x07pytorch\x1a\x05" + bytes(60), "UnknownKind", ""),
        ("preview", b"PYTORCH1" + bytes(60), wrong, "unreleased"), ("empty-zip", b"PK\5\6" + bytes(18), wrong, "empty zip"), ("split-zip", b"PK\7\x08" + bytes(60), wrong, "split zip"),
        ("torchscript-constants", archive(carriers.entries() + [Entry("x/constants.pkl", whole(b")"))]), wrong, "TorchScript"),
        ("torchscript-code", archive(carriers.entries() + [Entry("x/code/__torch__.py", b"import os")]), wrong, "TorchScript"),
        ("torchscript-model-json", archive([Entry("x/model.json", b"{}"), Entry("x/version", b"1")]), wrong, "TorchScript"),
        ("keras", archive([Entry("metadata.json", b"{}"), Entry("config.json", b"{}"), Entry("model.weights.h5", b"")]), "MissingRecord", "not written by torch.save"),
        ("jar", archive([Entry("META-INF/MANIFEST.MF", b"Manifest-Version: 1.0\n")]), "MissingRecord", "not written by torch.save"),
        ("docx", archive([Entry("[Content_Types].xml", b"<Types/>"), Entry("word/document.xml", b"<w/>")]), "MissingRecord", "not written by torch.save"),
        ("eml", b"From: a@b\r\nSubject: x\r\n\r\nhello", wrong, "text file"), ("shell", b"#!/bin/sh\ntouch hostile-canary\n", wrong, "text file"),
        ("partial-head", good[:100], "Truncated", ""), ("noise", bytes(range(200, 256)) * 3, "UnknownKind", "unknown kind"),
        ("tensorflow-index", b"\0\0\0\x01" + bytes(range(1, 60)), "UnknownKind", ""),
        ("bare-pickle-of-text", whole(text("hello")), wrong, "bare pickle"), ("bare-state-dict", whole(pairs(("w", num(1)))), wrong, "bare pickle"),
        ("bare-protocol-4", whole(b"}", 4), wrong, "bare pickle"), ("bare-protocol-6", b"\x80\x06}.", "UnknownKind", ""),
    ]
    for slug, data, rule, says in cases:
        yield f"p10-{slug}", "P10", slug.replace("-", " "), data, rule, says


def older():
    broken, cut = "Legacy", "Truncated"
    sys_info = lambda *items: whole(pairs(*items))  # noqa: E731
    w = lambda store: whole(pairs(("w", tensor(store))))  # noqa: E731
    good = storage(view=b"N")
    keys = lambda *names: whole(b"](" + b"".join(names) + b"e")  # noqa: E731
    cases = [
        ("magic-other", legacy(1, whole(b"\x8a\x0a" + b"l\xfc\x9cF\xf9 j\xa8P\x1a")), "WrongKind", "bare pickle"),
        ("magic-text", legacy(1, whole(text("magic"))), "WrongKind", "bare pickle"), ("magic-tuple", legacy(1, whole(tup(num(1)))), "WrongKind", "bare pickle"),
        ("protocol-1000", legacy(2, whole(b"M\xe8\x03")), broken, "1001"), ("protocol-text", legacy(2, whole(text("1001"))), broken, "1001"), ("protocol-none", legacy(2, whole(b"N")), broken, "1001"),
        ("sys-info-list", legacy(3, whole(b"]")), broken, "dict"), ("sys-info-big", legacy(3, sys_info(("little_endian", b"\x89"))), "ByteOrder", "little"),
        ("sys-info-endian-text", legacy(3, sys_info(("little_endian", text("yes")))), "ByteOrder", "little"),
        ("object-list", legacy(4, whole(b"]")), broken, "key"), ("object-five-items", legacy(4, w(storage())), "Pickle", "six items"),
        ("object-view-text", legacy(4, w(storage(view=text("v")))), "Pickle", "view"), ("object-view-two", legacy(4, w(storage(view=tup(text("v"), num(0))))), "Pickle", "view"),
        ("object-view-outside", legacy(4, w(storage(view=tup(text("v"), num(4), num(6))))), "StorageSize", ""), ("object-view-negative", legacy(4, w(storage(view=tup(text("v"), num(-1), num(6))))), "StorageSize", ""),
        ("object-view-overflows", legacy(4, w(storage(view=tup(text("v"), num(1 << 62), num(1 << 62))))), "StorageSize", ""),
        ("object-view-too-small", legacy(4, w(storage(view=tup(text("v"), num(4), num(2))))), "TensorBounds", ""),
        ("object-numel-2-62", legacy(4, w(storage("0", 1 << 62, view=b"N"))), "StorageSize", ""), ("object-numel-more", legacy(4, w(storage("0", 7, view=b"N"))), "StorageSize", "7 elements"),
        ("object-numel-negative", legacy(4, w(storage("0", -6, view=b"N"))), "StorageSize", ""), ("object-other-key", legacy(4, w(storage("1", view=b"N"))), broken, "key"),
        ("keys-tuple", legacy(5, whole(tup(text("0")))), broken, "list"), ("keys-none", legacy(5, whole(b"N")), broken, "list"), ("keys-number", legacy(5, whole(num(0))), broken, "list"),
        ("keys-empty", legacy(5, whole(b"]")), "MissingRecord", "`0`"), ("keys-twice", legacy(5, keys(text("0"), text("0"))), cut, ""), ("keys-unknown", legacy(5, keys(text("0"), text("9"))), broken, "key"),
        ("keys-of-none", legacy(5, keys(b"N")), broken, "keys"), ("keys-of-dicts", legacy(5, keys(b"}")), broken, "keys"),
        ("storage-numel-less", legacy(storages=(5).to_bytes(8, "little") + SIX_FLOATS), "StorageSize", "6 elements"), ("storage-numel-negative", legacy(storages=b"\xff" * 8 + SIX_FLOATS), "StorageSize", "-1"),
        ("storage-numel-2-63", legacy(storages=b"\xff" * 7 + b"\x7f" + SIX_FLOATS), "StorageSize", ""), ("storage-cut", legacy(storages=carriers.STORAGES[:-1]), cut, "24 bytes"),
        ("storage-absent", legacy(storages=b""), cut, ""), ("storage-half-a-count", legacy(storages=b"\6\0\0"), cut, ""),
        ("two-dtypes", legacy(4, whole(pairs(("a", tensor(good)), ("b", tensor(storage("0", 6, "DoubleStorage", view=b"N")))))), "StorageSize", ""),
    ]
    for slug, data, rule, says in cases:
        yield f"l1-{slug}", "L1", slug.replace("-", " "), data, rule, says
    whole_file = legacy()
    for length in [15, 20, 21, 40, 90, 120, len(whole_file) - 40, len(whole_file) - 24]:
        yield f"l1-cut-{length}", "L1", f"cut after {length} bytes", whole_file[:length], cut, ""
    metadata = call("collections", "OrderedDict")
    yield "l1-trailing-bytes", "L1", "bytes behind the last storage, as torch ignores them", whole_file + b"behind", "ok", ""
    yield "l1-good", "L1", "a good file", whole_file, "ok", ""
    yield "good-zip", "Z16", "a good file", archive(carriers.entries()), "ok", ""
    yield "good-deflated", "Z16", "a good deflated file", carriers.packed(state_dict()), "ok", ""
    built = metadata + pairs(("_metadata", b"}")) + b"b" + text("w") + tensor() + b"s"
    yield "good-metadata", "P6", "an OrderedDict with _metadata", carriers.stored(whole(built)), "ok", ""

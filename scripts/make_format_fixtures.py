#!/usr/bin/env python3
"""Writes tests/data/format/*.bin with torch and *.safetensors with safetensors, and what torch says of them
to expected.json and safetensors.json.

Needs torch and safetensors (2.11.0 and 0.8.0 made the committed files). Values come from a fixed generator, so running it
again with the same torch gives the same bytes, but for the storage keys of legacy files, which are
addresses.
"""

import collections
import json
import pathlib
import warnings
import zipfile

import torch
from safetensors.torch import load_file, save_file

warnings.simplefilter("ignore")
OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "format"


def values(*shape):
    count = max(1, torch.Size(shape).numel())
    return (torch.arange(count, dtype=torch.float32) * 0.37 - 1).reshape(shape)


def cases():
    base = values(24)
    layer = torch.nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(values(2, 3))
        layer.bias.copy_(values(2))
    yield "plain", {
        "f16": values(2, 3).half(),
        "bf16": values(3).bfloat16(),
        "f64": values(2).double(),
        "i64": torch.arange(3),
        "mask": torch.tensor([True, False, True]),
        "scale": torch.tensor(0.5),
        "empty": torch.empty(0, 3),
    }, {}
    yield "views", {
        "slice": base[10:20],
        "strided": base[::2],
        "transposed": base.view(4, 6).t(),
        "expanded": base[:1].expand(5),
        "same": base,
    }, {}
    yield "ordered", layer.state_dict(), {}
    yield "parameters", {"weight": layer.weight, "bias": layer.bias}, {}
    yield "bytes_dtypes", {
        "f8": values(4).to(torch.float8_e4m3fn),
        "u16": torch.arange(5).to(torch.uint16),
        "c64": torch.tensor([1 + 2j], dtype=torch.complex64),
    }, {}
    yield "nested", {
        "epoch": 3,
        "model_state_dict": collections.OrderedDict(w=values(2)),
        "optimizer": {"state": {0: {"exp_avg": values(2)}}, "betas": (0.9, 0.999)},
        "device": torch.device("cpu"),
    }, {}
    yield "protocol4", {"w": values(2, 2), "b": values(2)}, {"pickle_protocol": 4}
    yield "legacy", {
        "w": values(2, 3),
        "tied": base,
        "part": base[3:9],
        "h": values(2).half(),
    }, {"_use_new_zipfile_serialization": False}


def tensors():
    """A tensor of each dtype that safetensors has, but for F4; of no element, and of no dimension."""
    whole = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8]
    small = [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]
    floating = [torch.float64, torch.float32, torch.float16, torch.bfloat16, *small]
    yield "mask", torch.tensor([True, False, True])
    for dtype in whole:
        yield f"z.{dtype}", torch.arange(3).to(dtype)
    for dtype in floating:
        yield f"a.{dtype}", values(2, 3).to(dtype)
    yield "e8m0", torch.tensor([126, 127, 128], dtype=torch.uint8).view(torch.float8_e8m0fnu)
    yield "c64", torch.tensor([1 + 2j], dtype=torch.complex64)
    yield "empty", torch.empty(0, 3)
    yield "scale", torch.tensor(0.5)
    yield 'quote"\u00e9', values(1)


def describe(path, state_dict, nest, skipped):
    storages = {}
    tensors = []
    for name, tensor in state_dict.items():
        if not isinstance(tensor, torch.Tensor):
            continue
        tensor = tensor.detach()
        storage = storages.setdefault(tensor.untyped_storage()._cdata, len(storages))
        flat = tensor.contiguous().reshape(-1)
        raw = bytes(flat.view(torch.uint8).tolist()) if flat.numel() else b""
        tensors.append({
            "name": name,
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "stride": list(tensor.stride()),
            "storage_offset": tensor.storage_offset(),
            "storage": storage,
            "bytes": raw.hex(),
        })
    return {"file": path.name, "nest": nest, "skipped": skipped, "tensors": tensors}


def deflate(source, target):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            # A fixed date, so that the bytes do not depend on the day.
            fixed = zipfile.ZipInfo(entry.filename, (1980, 1, 1, 0, 0, 0))
            fixed.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(fixed, old.read(entry))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    expected = []
    for name, state_dict, options in cases():
        path = OUT / f"{name}.bin"
        torch.save(state_dict, path, **options)
        nest, skipped = None, []
        if name == "nested":
            nest, skipped = "model_state_dict", ["epoch", "optimizer", "device"]
            state_dict = state_dict[nest]
        expected.append(describe(path, state_dict, nest, skipped))
        if name == "plain":
            deflated = OUT / "deflated.bin"
            deflate(path, deflated)
            expected.append(describe(deflated, state_dict, None, []))
    (OUT / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    path = OUT / "dtypes.safetensors"
    save_file(dict(tensors()), path, metadata={"format": "pt"})
    (OUT / "safetensors.json").write_text(json.dumps(describe(path, load_file(path), None, []), indent=1) + "\n")


if __name__ == "__main__":
    main()

"""inspect --json and the values read, against torch.load(weights_only=True)."""
import json
import zipfile

import torch
from fixtures.state_dicts import dtype_name, load, load_tensors, raw_bytes, weight_files

from .core import DATA, MergeFailed, check

MODELS = ["llama/primary", "llama/secondary", "gpt2/primary", "gpt2/secondary", "neox/primary", "neox/secondary",
          "expected/llama_t0.5", "expected/gpt2_t0.3", "expected/neox_t0.5"]


def described(model):
    """What torch says, in inspect's words, files in the order of their names."""
    return [{"name": name, "dtype": dtype_name(tensor), "shape": list(tensor.shape), "stride": list(tensor.stride()),
             "storage_offset": tensor.storage_offset(), "file": path.name}
            for path in weight_files(model) for name, tensor in load_tensors(path).items()]


def first_difference(ours, theirs):
    """'' or the first entry that differs."""
    if len(ours) != len(theirs):
        return f"{len(ours)} tensors, torch has {len(theirs)}"
    return next((f"{mine} and {other}" for mine, other in zip(ours, theirs) if mine != other), "")


def agrees(context, label, model, in_order=True):
    """One line: inspect and torch.load say the same of a model."""
    ours, theirs = context.inspect(model), described(model)
    if not in_order:
        ours, theirs = (sorted(side, key=lambda entry: entry["name"]) for side in (ours, theirs))
    difference = first_difference(ours, theirs)
    context.expect(not difference, label, difference or f"{len(ours)} tensors")


def read_values_agree(context, label, model):
    """Read through a merge of the model with itself at t = 0: every logical byte as torch reads it."""
    try:
        child = load(context.merge(model, model, "-t", 0))
    except MergeFailed as failure:
        context.expect(False, f"{label}: values", failure)
        return
    parent = {name: tensor for path in weight_files(model) for name, tensor in load_tensors(path).items()}
    wrong = [name for name, tensor in parent.items()
             if name not in child or (child[name].raw, child[name].shape) != (raw_bytes(tensor), tuple(tensor.shape))]
    context.expect(not wrong and len(child) == len(parent), f"{label}: values", f"{len(parent)} tensors, wrong: {wrong[:3]}")


@check()
def inspect_agrees_with_torch_load(context):
    """Legacy, zip, sharded, nested, views, dtypes: names, dtypes, shapes, strides, offsets."""
    for name in MODELS:
        agrees(context, name, DATA / name)
    for path in sorted((DATA / "reader").glob("*.bin")):
        agrees(context, path.name, path)


@check()
def values_are_read_as_torch_reads_them(context):
    """Every value of the fixtures and of the reader's files."""
    for name in MODELS:
        read_values_agree(context, name, DATA / name)
    for path in sorted((DATA / "reader").glob("*.bin")):
        mergeable = without_unmergeable(context, path)
        if mergeable != path:
            refused = context.run("merge", path, path, "-o", context.fresh(), "-t", 0)
            named = any(name in refused.stderr for name in load_tensors(path) if unmergeable(name))
            context.expect(refused.code == 65 and named, f"{path.name}: complex or expanded tensors are refused by name",
                           refused.last_lines)
        read_values_agree(context, path.name, mergeable)


def unmergeable(name):
    """Names in the reader's files of tensors that the tool reads but does not merge."""
    return name.startswith("complex") or name == "expanded"


def without_unmergeable(context, path):
    """The file itself, or a copy in its format without the tensors that can't be merged."""
    content = load_tensors(path)
    kept = {name: tensor for name, tensor in content.items() if not unmergeable(name)}
    if len(kept) == len(content):
        return path
    copy = context.fresh(path.name)
    torch.save(kept, copy, _use_new_zipfile_serialization=zipfile.is_zipfile(path))
    return copy


@check()
def descriptions_in_the_repository_are_torchs(context):
    """The committed .json files still say what this torch says."""
    for path in sorted((DATA / "reader").glob("*.json")):
        stored = json.loads(path.read_text())["tensors"]
        now = [{**entry, "bytes": raw_bytes(tensor).hex()} for entry, tensor in
               zip(described(path.with_suffix(".bin")), load_tensors(path.with_suffix(".bin")).values())]
        for entry in now:
            del entry["file"]
        context.expect(stored == now, path.name)


@check()
def children_are_whole_zips(context):
    """Python's zipfile reads every record of a child and finds its CRC right; torch maps it."""
    child = context.merge(DATA / "llama/primary", DATA / "llama/secondary", "--max-shard-size", "60KB")
    for path in weight_files(child):
        with zipfile.ZipFile(path) as archive:
            context.expect(archive.testzip() is None, f"{path.name}: CRC")
        torch.load(path, weights_only=True, mmap=True)

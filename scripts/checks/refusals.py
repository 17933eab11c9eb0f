"""What must be refused: the exit code, the words, nothing left at OUT, parents untouched."""
import os

import torch

from . import variants
from .core import DATA, check, sha256_of_weights

PRIMARY = variants.LLAMA
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
NORM = "model.norm.weight"


def refuse(context, label, codes, primary, secondary, *options, says=(), out=None):
    """A merge that must fail with one of `codes`, and say each word of `says`."""
    out = out or context.fresh("refused")
    before, beside = os.path.lexists(out), sorted(os.listdir(out.parent))
    finished = context.run("merge", primary, secondary, "-o", out, *options)
    problems = [f"does not say {word!r}" for word in says if word not in finished.stderr]
    if finished.code not in codes:
        problems.append(f"exit {finished.code}, expected {codes}")
    if not before and os.path.lexists(out):
        problems.append("left something at OUT")
    left = sorted(set(os.listdir(out.parent)) - set(beside))
    if left:
        problems.append(f"left {left} beside OUT")
    if "panicked" in finished.stderr or finished.code < 0:
        problems.append("crashed")
    context.expect(not problems, label, "; ".join(problems) or finished.last_lines)


@check()
def parents_of_different_sizes(context):
    """Rank, width, depth, kind."""
    def reshape(tensors):
        tensors[NORM] = tensors[NORM].reshape(8, 8)

    def narrow(tensors):
        for name, tensor in tensors.items():
            tensors[name] = tensor[..., :32].clone()

    def shallow(tensors):
        for name in [name for name in tensors if ".layers.1." in name]:
            del tensors[name]

    def integer(tensors):
        tensors[NORM] = tensors[NORM].to(torch.int32)

    secondary = lambda change, **config: variants.changed(context.fresh("b"), change, **config)  # noqa: E731
    refuse(context, "rank", [65], PRIMARY, secondary(reshape), says=[NORM, "64", "8"])
    refuse(context, "width", [65], PRIMARY, secondary(narrow, hidden_size=32), says=[NORM, Q_PROJ, "lm_head.weight"])
    refuse(context, "depth", [65], PRIMARY, secondary(shallow, num_hidden_layers=1), says=["model.layers"])
    refuse(context, "depth, the other way", [65], secondary(shallow, num_hidden_layers=1), PRIMARY, says=["model.layers"])
    refuse(context, "floating and integer", [65], PRIMARY, secondary(integer), says=[NORM])
    refuse(context, "another architecture", [65], PRIMARY, DATA / "gpt2/primary")


@check()
def broken_sharded_parents(context):
    """Shards and index that disagree."""
    missing = variants.copied(context.fresh("b"))
    next(missing.glob("*-00002-of-*.bin")).unlink()
    refuse(context, "missing shard", [65, 66], PRIMARY, missing, says=["00002-of"])
    lacking = variants.copied(context.fresh("b"))
    index = variants.read_index(lacking)
    index["weight_map"]["model.layers.0.ghost.weight"] = index["weight_map"][Q_PROJ]
    variants.write_index(lacking, index)
    refuse(context, "index names a tensor its shard lacks", [65], PRIMARY, lacking, says=["ghost"])
    leaving = variants.copied(context.fresh("b"))
    index = variants.read_index(leaving)
    index["weight_map"][Q_PROJ] = "../../etc/passwd"
    variants.write_index(leaving, index)
    refuse(context, "index leaves the directory", [65], PRIMARY, leaving)
    text = variants.copied(context.fresh("b"))
    (text / "pytorch_model.bin.index.json").write_text("{not json")
    refuse(context, "index is not JSON", [65], PRIMARY, text)


@check()
def broken_files(context):
    """Truncated, corrupted, or no checkpoint at all."""
    whole = variants.write(context.fresh("a"), variants.tensors_of(PRIMARY)) / "pytorch_model.bin"
    legacy = DATA / "gpt2/primary/pytorch_model.bin"
    for label, source, kept in (("zip cut in its middle", whole, 0.5), ("zip without its last byte", whole, -1),
                                ("legacy cut in its middle", legacy, 0.5), ("legacy without its last byte", legacy, -1),
                                ("empty file", whole, 0)):
        content = source.read_bytes()
        path = context.fresh("b.bin")
        path.write_bytes(content[: int(len(content) * kept) if 0 <= kept < 1 else kept])
        refuse(context, label, [65], path, source, says=["b.bin"])
    for label, content in (("text", b"hello\n" * 50), ("git-lfs pointer", b"version https://git-lfs.github.com/spec/v1\n"),
                           ("HTML page", b"<!DOCTYPE html><html></html>")):
        path = context.fresh("b.bin")
        path.write_bytes(content)
        refuse(context, label, [65], whole, path, says=["b.bin"])
    flipped = bytearray(whole.read_bytes())
    flipped[len(flipped) // 2] ^= 0x10
    path = context.fresh("b.bin")
    path.write_bytes(flipped)
    refuse(context, "one bit flipped in a payload (CRC)", [65], whole, path)
    refuse(context, "no such file", [66], context.fresh("nothing"), whole)


@check()
def malicious_pickles(context):
    """A pickle that calls something is refused by name, and nothing is called."""
    canary = context.fresh("canary")

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    whole = variants.write(context.fresh("a"), variants.tensors_of(PRIMARY)) / "pytorch_model.bin"
    for label, legacy in (("zip", False), ("legacy", True)):
        path = context.fresh("b.bin")
        torch.save({"weight": torch.ones(2), "x": Payload()}, path, _use_new_zipfile_serialization=not legacy)
        refuse(context, label, [65], whole, path, says=["system"])
        context.expect(not canary.exists(), f"{label}: nothing was called")


@check()
def values_that_are_not_finite(context):
    """NaN and Inf in a parent, overflow in the child; --allow-nonfinite lets them pass."""
    def put(value):
        def change(tensors):
            tensors[Q_PROJ][3, 5] = value
        return change

    for label, value in (("NaN", float("nan")), ("Inf", float("inf"))):
        bad = variants.changed(context.fresh("b"), put(value))
        refuse(context, f"{label} in the secondary", [65], PRIMARY, bad, says=[Q_PROJ, "1"])
        refuse(context, f"{label} in the primary", [65], bad, PRIMARY, says=[Q_PROJ])
        allowed = context.run("merge", PRIMARY, bad, "-o", context.fresh(), "--allow-nonfinite")
        context.expect(allowed.code == 0, f"{label} with --allow-nonfinite", allowed.last_lines)
    # Two orthogonal vectors: at t = 0.5 the arc is longer than its chord, 60,000 becomes 84,852.
    a = variants.changed(context.fresh("a"), lambda tensors: checkerboard(tensors, 1))
    b = variants.changed(context.fresh("b"), lambda tensors: checkerboard(tensors, -1))
    refuse(context, "fp16 overflow of finite parents", [65], a, b, says=[Q_PROJ])
    wide = context.run("merge", a, b, "-o", context.fresh(), "--dtype", "float32")
    context.expect(wide.code == 0, "the same pair as float32 is merged", wide.last_lines)


def checkerboard(tensors, sign):
    """60,000 everywhere, in every second row times `sign`."""
    tensors[Q_PROJ] = torch.full_like(tensors[Q_PROJ], 60000.0)
    tensors[Q_PROJ][::2] *= sign


@check()
def outputs_that_are_refused(context):
    """OUT exists, is or lies in a parent."""
    a, b = variants.copied(context.fresh("a")), variants.copied(context.fresh("b"))
    before = sha256_of_weights(a), sha256_of_weights(b)
    existing = context.fresh("existing")
    existing.mkdir()
    (existing / "note.txt").write_text("mine")
    refuse(context, "OUT exists and is not empty", [73], a, b, out=existing)
    refuse(context, "OUT is a parent", [73], a, b, out=a)
    refuse(context, "OUT is a parent, with --overwrite", [73], a, b, "--overwrite", out=b)
    refuse(context, "OUT is inside a parent", [73], a, b, out=a / "child")
    link = context.fresh("link")
    link.symlink_to(b)
    refuse(context, "OUT is inside a parent through a link", [73], a, b, out=link / "child")
    context.expect((sha256_of_weights(a), sha256_of_weights(b)) == before, "the parents are untouched")
    context.expect([path.name for path in existing.iterdir()] == ["note.txt"], "the existing OUT is untouched")
    empty = context.fresh("empty")
    empty.mkdir()
    context.expect(context.run("merge", a, b, "-o", empty).code == 0, "an empty OUT is taken")
    context.expect(context.run("merge", a, b, "-o", existing, "--overwrite").code == 0
                   and not (existing / "note.txt").exists(), "--overwrite replaces")


@check()
def usage_errors(context):
    """Exit 2 before anything is opened."""
    for options in (["-t", "1.5"], ["-t", "-0.1"], ["-t", "nan"], ["--max-shard-size", "5XB"],
                    ["--method", "cubic"], ["--no-such-option"], ["--threads", "0"]):
        finished = context.run("merge", "/nonexistent/a", "/nonexistent/b", "-o", context.fresh(), *options)
        context.expect(finished.code == 2, " ".join(options), f"exit {finished.code}")

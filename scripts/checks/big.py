"""Big pairs: a shard above 4 GiB (--long), and wall time and peak memory (--long for 1.1B)."""
import json
import subprocess
import sys
import zipfile

import numpy as np
import torch
from fixtures.numbers import round_to, to_float64, ulp_distance
from fixtures.state_dicts import raw_bytes
from fixtures.torch_zip import Record, Tensor, write_shard
from reference_merge import Options, coefficients

from .core import DATA, REPOSITORY, check

FOUR_GIB = 1 << 32
BIG_ROWS, BIG_COLUMNS = 70_000, 32_768  # float16: 4.6 GB in one record, below the default 5 GB per shard
HEAD_ELEMENTS = 100_000


def sparse_parent(path, seed):
    """A file with a tensor of 4.6 GB, all but its first values a hole, and a small one before and after."""
    generator = np.random.default_rng(seed)
    heads = {}

    def tensor(name, shape):
        one = Tensor(name, "float16", shape, None)
        head = (generator.standard_normal(min(one.numel, HEAD_ELEMENTS)) * 0.02).astype("<f2").tobytes()
        heads[name] = head
        one.payload = lambda: Record([head], one.size_bytes - len(head))
        return one

    write_shard(path, [tensor("before", (300, 7)), tensor("big", (BIG_ROWS, BIG_COLUMNS)), tensor("after", (10, 10))])
    return heads


@check("long")
def shard_above_4_GiB(context):
    """zip64 sizes and offsets: read, merged, CRCs right, the same bytes as torch.save writes."""
    a, b = context.fresh("a.bin"), context.fresh("b.bin")
    heads_a, heads_b = sparse_parent(a, 1), sparse_parent(b, 2)
    child = context.merge(a, b, "-t", 0.4) / "pytorch_model.bin"
    context.expect(child.stat().st_size > FOUR_GIB, "one file above 4 GiB", f"{child.stat().st_size} bytes")
    tensors = torch.load(child, weights_only=True, mmap=True)
    for name, tensor in tensors.items():
        x, y = (to_float64(side[name], "float16") for side in (heads_a, heads_b))
        s0, s1 = coefficients(x, y, Options(0.4))  # the holes add nothing to dot and norms
        have = raw_bytes(tensor.reshape(-1)[: len(x)])
        worst = int(ulp_distance(have, round_to(s0 * x + s1 * y, "float16"), "float16").max())
        tail = tensor.reshape(-1)[len(x):]
        zero = all(not piece.any() for piece in tail.split(1 << 26))
        context.expect(worst <= 1 and zero, f"{name}: values", f"worst {worst} ulp, the rest zero: {zero}")
    with zipfile.ZipFile(child) as archive:
        context.expect(archive.testzip() is None, "every CRC is right")
    again = context.fresh("pytorch_model.bin")
    torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}, again)
    compared = subprocess.run(["cmp", child, again], capture_output=True, text=True)
    context.expect(compared.returncode == 0, "torch.save of the same tensors compares equal", compared.stdout.strip())


def measure(context, label, primary, secondary, *options):
    """Wall time and peak memory of one merge."""
    command = [context.binary, "merge", primary, secondary, "-o", context.fresh(), "--no-progress", "-q", *options]
    launcher = REPOSITORY / "scripts/checks/launcher.py"
    finished = subprocess.run([sys.executable, "-I", "-S", launcher, *command], capture_output=True, text=True)
    figures = json.loads(finished.stderr.splitlines()[-1])
    context.expect(figures["code"] == 0, label,
                   f"{figures['seconds']:.2f} s, peak RSS {figures['peak_rss_bytes'] / 1e6:.0f} MB")


@check()
def time_and_memory_of_the_tiny_pair(context):
    """A figure for the start-up cost."""
    measure(context, "llama pair", DATA / "llama/primary", DATA / "llama/secondary")


@check("long")
def time_and_memory_of_a_1_1B_pair(context):
    """TinyLlama's shape, 2 x 2.2 GB, made by make_pair.py under .cache/pairs and kept there."""
    pair = REPOSITORY / ".cache/pairs/1.1b"
    if not (pair / "b/config.json").exists():
        subprocess.run([sys.executable, REPOSITORY / "scripts/make_pair.py", "--shape", "1.1b", "--vocab", "32000", "32032",
                        "--out", pair], check=True, stdout=subprocess.DEVNULL)
    for options in ((), ("--no-fsync",), ("--threads", "1", "--no-fsync")):
        measure(context, " ".join(("1.1B float16", *options)), pair / "a", pair / "b", *options)

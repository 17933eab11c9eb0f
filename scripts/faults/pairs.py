"""Parents of large tensors, which reach the disk past the page cache."""
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from hostile.carriers import Entry, archive  # noqa: E402
from hostile.opcodes import pairs, storage, tensor, whole  # noqa: E402

# Without this bit of the exponent no float16 is NaN or Inf; in the other bytes it is of the mantissa.
FINITE = bytes(byte & ~0x40 for byte in range(256))
SHIFT = 2 * 7919


def make_parent(path, seed, tensors, rows, columns):
    """A file of float16 matrices: one random block, begun at another place by each."""
    numel = rows * columns
    bits = random.Random(seed).getrandbits(numel * 16)
    block = bits.to_bytes(numel * 2, "little").translate(FINITE)
    value = pairs(*(
        (f"layer.{number}", tensor(storage(str(number), numel, "HalfStorage"), 0, (rows, columns), (columns, 1)))
        for number in range(tensors)
    ))
    shifts = [SHIFT * number % (numel * 2) for number in range(tensors)]
    data = [Entry(f"x/data/{number}", block[shift:] + block[:shift]) for number, shift in enumerate(shifts)]
    path.mkdir(parents=True)
    (path / "pytorch_model.bin").write_bytes(archive([Entry("x/data.pkl", whole(value)), *data]))


def make_pair(place, *shape):
    """Two such parents in a directory: their paths."""
    paths = [Path(place) / name for name in "ab"]
    for seed, path in enumerate(paths):
        make_parent(path, seed, *shape)
    return paths

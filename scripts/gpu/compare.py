"""How far two children are apart."""
import json
from dataclasses import dataclass
from pathlib import Path

import torch

# Where the parents' elements cancel, the child keeps the last digits of the sums: as a part of the largest element.
CANCELLED = 1e-8
# Elements that may differ by one unit in the last place: where rounding could go either way. Most by far are on lines
# at a t of few digits, where exact values lie half way between two of float16's; tests/it/device.rs allows as many.
MOST_DIFFERING = 0.01

INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass
class Distance:
    """Over all tensors of a pair of children."""

    elements: int = 0
    differing: int = 0
    units: int = 0
    beyond: str = ""

    @property
    def is_near(self):
        """At most one unit apart, in few places."""
        return not self.beyond and self.differing <= MOST_DIFFERING * max(self.elements, 1)

    def __str__(self):
        if self.beyond:
            return self.beyond
        return f"{self.differing} of {self.elements} elements differ, by up to {self.units} units"


def weight_files(child):
    """A child's files of weights, in order."""
    index = child / "pytorch_model.bin.index.json"
    if not index.exists():
        return ["pytorch_model.bin"]
    return sorted(set(json.loads(index.read_text())["weight_map"].values()))


def same_bytes(a, b):
    """Whether two children have the same weight files to the bit."""
    names = weight_files(a)
    if names != weight_files(b):
        return False
    for name in names:
        with open(Path(a) / name, "rb") as left, open(Path(b) / name, "rb") as right:
            while True:
                block = left.read(1 << 24)
                if block != right.read(1 << 24):
                    return False
                if not block:
                    break
    return True


def load(path):
    """The tensors of a weight file, mapped."""
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def in_order(bits):
    """Where floats stand in the order of all values: neighbours are one apart, both zeros the same."""
    lowest = torch.iinfo(bits.dtype).min
    bits = bits.to(torch.int64)
    return torch.where(bits < 0, lowest - bits, bits)


def distance(a, b):
    """The Distance of two children."""
    found = Distance()
    for name in weight_files(a):
        left, right = load(a / name), load(b / name)
        if list(left) != list(right):
            found.beyond = f"{name} holds other tensors"
            return found
        for key, tensor in left.items():
            compare(key, tensor.reshape(-1), right[key].reshape(-1), found)
    return found


def chosen(values, where, integers):
    """Some of the values, in float64."""
    return values.view(integers)[where].view(values.dtype).double()


def compare(key, a, b, found):
    """Adds one tensor's distance."""
    found.elements += a.numel()
    if a.dtype != b.dtype or a.numel() != b.numel():
        found.beyond = f"{key} has another dtype or size"
        return
    integers = INTEGERS[a.element_size()]
    where = a.view(integers) != b.view(integers)
    count = int(where.sum())
    if count == 0:
        return
    found.differing += count
    if not a.dtype.is_floating_point:
        found.beyond = f"{key} is not floating and differs"
        return
    units = (in_order(a.view(integers)[where]) - in_order(b.view(integers)[where])).abs()
    # By their bits, since torch can't choose among float8.
    apart = (chosen(a, where, integers) - chosen(b, where, integers)).abs()
    counts = ~(apart <= CANCELLED * float(a.double().abs().max()))
    furthest = int(units[counts].max()) if bool(counts.any()) else 0
    found.units = max(found.units, furthest)
    if furthest > 1:
        found.beyond = f"{key}: {int((units[counts] > 1).sum())} elements are more than one unit apart"

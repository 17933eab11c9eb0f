"""The parents: which pairs there are, how large they are, and making those that are missing."""
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent
VOCABULARIES = {"different": (32000, 32032), "equal": (32000, 32000)}
# Rounded up: what a parent of two-byte weights takes on disk.
PARENT_BYTES = {"0.1b": 220 * 10**6, "1.1b": 2210 * 10**6, "7b": 13_500 * 10**6}
DTYPES = ("float16", "bfloat16")
SMALL = "small"  # 1 MB a parent
SPARSE = "70b-sparse"
# Run by the Python of the benchmark's environment: make_pair.py has no shape so small.
MAKE_SMALL = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from make_pair import Shape, write_parent
for name in "ab":
    write_parent(Path(sys.argv[2]) / name, Shape(64, 176, 8, 4, 4), 1000, "float16", 5 * 10**9, name == "b", False)
"""


@dataclass(frozen=True)
class Pair:
    """Two parents of one shape and dtype."""

    shape: str
    dtype: str
    vocabularies: tuple

    @property
    def name(self):
        """The pair's directory inside the data directory."""
        return f"{self.shape}-{self.dtype}-{self.vocabularies[0]}-{self.vocabularies[1]}"

    @property
    def parent_bytes(self):
        """About what one parent takes on disk."""
        return PARENT_BYTES[self.shape]


def all_pairs(shapes, dtypes, vocabularies):
    """The pairs to measure, small ones first."""
    return [Pair(shape, dtype, VOCABULARIES[which])
            for shape in PARENT_BYTES if shape in shapes
            for dtype in dtypes for which in vocabularies]


def _make(directory, command):
    """Run a command that makes a pair, under another name until the pair is whole."""
    part = directory.with_name(directory.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    subprocess.run([*command, str(part)], check=True, stdout=subprocess.DEVNULL)
    part.rename(directory)


def ensure(data, pair):
    """The directory of a pair, which is made where it is missing."""
    directory = data / pair.name
    if not directory.exists():
        first, second = map(str, pair.vocabularies)
        _make(directory, [sys.executable, str(SCRIPTS / "make_pair.py"), "--shape", pair.shape,
                          "--dtype", pair.dtype, "--vocab", first, second, "--out"])
    return directory


def ensure_sparse(data):
    """The 70B-shaped pair of holes."""
    directory = data / SPARSE
    if not directory.exists():
        _make(directory, [sys.executable, str(SCRIPTS / "make_pair.py"), "--sparse", "70b", "--out"])
    return directory


def ensure_small(data):
    """The pair of 1 MB a parent."""
    directory = data / SMALL
    if not directory.exists():
        _make(directory, [sys.executable, "-c", MAKE_SMALL, str(SCRIPTS)])
    return directory


def room_for(data, pair, children):
    """What is missing on the disk for a pair that isn't there yet and so many children, in bytes; 0 where it fits."""
    parents = 0 if (data / pair.name).exists() else 2
    needed = (parents + children) * pair.parent_bytes + 10**9
    return max(0, needed - shutil.disk_usage(data).free)

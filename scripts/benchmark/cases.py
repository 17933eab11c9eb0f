"""What is measured: for every pair the floor, our merge and the peers; and the commands that should just be quick."""
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmark.measure import Stage, files_under
from benchmark.pairs import SCRIPTS

SWEEP = ("0.1", "0.3", "0.5", "0.7", "0.9")
# Every case by its name in the tables.
FLOOR, FLOOR_SYNC = "floor", "floor+sync"
OURS, OURS_NO_FSYNC = "ours", "ours --no-fsync"
MERGEKIT, ORIGINAL = "mergekit", "original-style"
SWEEP_FLOOR, SWEEP_FLOOR_SYNC = "sweep floor", "sweep floor+sync"
SWEEP_OURS, SWEEP_OURS_NO_FSYNC = "sweep ours", "sweep ours --no-fsync"
NOTHING, VERSION, PLAN, SMALL_MERGE = "nothing", "--version", "plan 70b-sparse", "merge 1 MB pair"
PEERS = (MERGEKIT, ORIGINAL)

MERGEKIT_FLAGS = ("--lazy-unpickle", "--no-safe-serialization", "--out-shard-size", "5B", "--no-copy-tokenizer")
MERGEKIT_CONFIG = """\
merge_method: slerp
base_model: {a}
models:
  - model: {a}
  - model: {b}
parameters:
  t: 0.5
dtype: {dtype}
"""


@dataclass(frozen=True)
class Case:
    """Something to measure: stages that run one after the other, and the files that they read.

    `inputs` are read before a warm run and evicted before a cold one, `evicted` only the latter. `writes_bytes` is
    about what is written.
    """

    name: str
    stages: tuple
    inputs: tuple
    rounds: int
    evicted: tuple = ()
    writes_bytes: int = 0


@dataclass(frozen=True)
class Place:
    """Where a group's runs happen: our binary, the parents, a scratch directory, and the output that each run gets."""

    binary: str
    a: Path
    b: Path
    scratch: Path

    @property
    def out(self):
        """Made before each run and deleted after it."""
        return self.scratch / "out"


def bytes_of(directory):
    """Size of the files in it."""
    return sum(file.stat().st_size for file in files_under(directory))


def _stage(label, *argv):
    return Stage(label, tuple(map(str, argv)))


def _floor(place, copies, sync):
    """`cat A/* B/* >/dev/null`, then `cp -r A C` once or more, then `sync C/*`."""
    names = [file.relative_to(place.a) for file in files_under(place.a)]
    children = [place.out / f"C{number}" for number in range(copies)]
    stages = [_stage("cat", "cat", *files_under(place.a), *files_under(place.b))]
    stages += [_stage("cp", "cp", "-r", place.a, child) for child in children]
    if sync:
        stages.append(_stage("sync", "sync", *(child / name for child in children for name in names)))
    return tuple(stages)


def _ours(place, *options):
    """One call of our merge."""
    command = (place.binary, "merge", place.a, place.b, "--quiet", "--no-progress", *options)
    return (_stage("merge", *command),)


def _mergekit(place, pair):
    """One call of mergekit-yaml, with the recipe in the scratch directory."""
    recipe = place.scratch / "mergekit.yml"
    recipe.write_text(MERGEKIT_CONFIG.format(a=place.a, b=place.b, dtype=pair.dtype))
    program = Path(sys.executable).parent / "mergekit-yaml"
    return (_stage("mergekit-yaml", program, recipe, place.out / "child", *MERGEKIT_FLAGS),)


def _original(place):
    """One call of the plain Python merge."""
    return (_stage("python", sys.executable, SCRIPTS / "bench_original.py", place.a, place.b, place.out / "child"),)


def merge_cases(place, rounds):
    """One child: the floor and ours, with and without the wait for the disk."""
    child, parents = place.out / "child", (place.a, place.b)
    named = {
        FLOOR_SYNC: _floor(place, 1, True),
        OURS: _ours(place, "-o", child),
        FLOOR: _floor(place, 1, False),
        OURS_NO_FSYNC: _ours(place, "-o", child, "--no-fsync"),
    }
    return [Case(name, stages, parents, rounds, writes_bytes=bytes_of(place.a)) for name, stages in named.items()]


def sweep_cases(place, rounds):
    """Five children at five t: the floor copies five times."""
    children, parents = place.out / "out-{t}", (place.a, place.b)
    options = ("-t", ",".join(SWEEP), "-o", children)
    named = {
        SWEEP_FLOOR_SYNC: _floor(place, len(SWEEP), True),
        SWEEP_OURS: _ours(place, *options),
        SWEEP_FLOOR: _floor(place, len(SWEEP), False),
        SWEEP_OURS_NO_FSYNC: _ours(place, *options, "--no-fsync"),
    }
    writes = len(SWEEP) * bytes_of(place.a)
    return [Case(name, stages, parents, rounds, writes_bytes=writes) for name, stages in named.items()]


def peer_cases(place, pair, rounds):
    """What others use for the same job; neither waits for the disk."""
    parents = (place.a, place.b)
    named = {MERGEKIT: _mergekit(place, pair), ORIGINAL: _original(place)}
    return [Case(name, stages, parents, rounds, writes_bytes=bytes_of(place.a)) for name, stages in named.items()]


def startup_cases(program, sparse, small, out, rounds):
    """Commands that should just be quick. `program` is the binary and the libraries that it loads."""
    binary, child = program[0], out / "child"
    plan = (_stage("ours", binary, "plan", sparse / "a", sparse / "b"),)
    merge = (_stage("ours", binary, "merge", small / "a", small / "b", "-o", child, "--quiet", "--no-progress"),)
    return [
        Case(NOTHING, (_stage("true", "true"),), (), rounds),
        Case(VERSION, (_stage("ours", binary, "--version"),), program, rounds),
        # The sparse pair isn't read beforehand (280 GB of zeros): the round before has warmed its headers.
        Case(PLAN, plan, program, rounds, evicted=(sparse,)),
        Case(SMALL_MERGE, merge, (*program, small), rounds),
    ]


def memory_needed(case_name, pair):
    """About what a case keeps in memory: the original-style merge holds both parents and a float32 child."""
    return int(4.2 * pair.parent_bytes) if case_name == ORIGINAL else 0

"""What every check uses: the list of checks, the tool under test, and PASS/FAIL lines."""
import hashlib
import json
import shutil
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPOSITORY / "scripts"))

DATA = REPOSITORY / "tests" / "data"
WEIGHT_PATTERNS = ("pytorch_model*.bin", "pytorch_model.bin.index.json", "model*.safetensors", "model.safetensors.index.json")
TIMEOUT_SECONDS = 3600
CHECKS = []


@dataclass(frozen=True)
class Check:
    """A named check and whether it runs only with --long or --real."""

    name: str
    run: object
    group: str


def check(group="default"):
    """Register a function; its name, with spaces, is the check's name."""
    def register(function):
        CHECKS.append(Check(function.__name__.replace("_", " "), function, group))
        return function
    return register


class MergeFailed(Exception):
    """The tool refused where it should have merged."""


@dataclass
class Run:
    """A finished run of the tool."""

    code: int
    stdout: str
    stderr: str

    @property
    def last_lines(self):
        """The end of stderr, for a FAIL line."""
        return " | ".join(self.stderr.strip().splitlines()[-3:])[:300]


class Context:
    """One conformance run: the binary, a scratch directory, the count of outcomes."""

    def __init__(self, binary, scratch):
        self.binary, self.scratch = Path(binary).resolve(), Path(scratch)
        self.passed = self.failed = 0
        self._serial = 0
        self._current = ""

    def run_check(self, item):
        """Run one check; an exception is a failure of it."""
        self._current = item.name
        try:
            item.run(self)
        except MergeFailed as failure:
            self.expect(False, "the tool failed", str(failure))
        except Exception:  # a broken check must not hide the others
            self.expect(False, "exception", traceback.format_exc(limit=-3))
        self._clean()

    def expect(self, condition, label, detail=""):
        """One PASS or FAIL line."""
        self.passed += bool(condition)
        self.failed += not condition
        shown = f"  ({detail})" if detail else ""
        print(f"{'PASS' if condition else 'FAIL'} {self._current}: {label}{shown}", flush=True)
        return bool(condition)

    def note(self, text):
        """A line with a measurement."""
        print(f"NOTE {self._current}: {text}", flush=True)

    def fresh(self, name="out"):
        """A path in the scratch directory that does not exist yet."""
        self._serial += 1
        path = self.scratch / f"{self._serial:04d}" / name
        path.parent.mkdir(parents=True)
        return path

    def _clean(self):
        for path in self.scratch.iterdir():
            shutil.rmtree(path)

    def run(self, *words, cwd=None):
        """Run the tool to its end."""
        command = [str(self.binary), *map(str, words)]
        out, err = self.fresh("stdout"), self.fresh("stderr")
        with open(out, "wb") as stdout, open(err, "wb") as stderr:
            code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, cwd=cwd,
                                  timeout=TIMEOUT_SECONDS).returncode
        return Run(code, *(path.read_text(encoding="utf-8", errors="replace") for path in (out, err)))

    def merge(self, primary, secondary, *options, name="child"):
        """Merge; the child's directory. Raises MergeFailed unless the exit code is 0."""
        out = self.fresh(name)
        finished = self.run("merge", primary, secondary, "-o", out, "--no-progress", "--no-fsync", *options)
        if finished.code != 0:
            words = " ".join(map(str, (short(primary), short(secondary), *options)))
            raise MergeFailed(f"merge {words}: exit {finished.code}: {finished.last_lines}")
        return out

    def inspect(self, model):
        """The tensors that `inspect --json` lists."""
        finished = self.run("inspect", model, "--json")
        if finished.code != 0:
            raise MergeFailed(f"inspect {short(model)}: exit {finished.code}: {finished.last_lines}")
        return json.loads(finished.stdout)["tensors"]


def short(path):
    """A path for people: relative to the repository where it lies there."""
    path = Path(path)
    return path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path


def weight_files(directory):
    """{name: path} of weight files and index."""
    return {path.name: path for pattern in WEIGHT_PATTERNS for path in sorted(Path(directory).glob(pattern))}


def sha256_of_weights(directory):
    """{name: hex digest} of weight files and index."""
    return {name: sha256(path) for name, path in weight_files(directory).items()}


def sha256(path):
    """Hex digest of a file of any size."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def equal_files(ours, theirs):
    """'' where both directories hold the same weight files, byte for byte; else what differs."""
    left, right = weight_files(ours), weight_files(theirs)
    if list(left) != list(right):
        return f"files {sorted(set(left) ^ set(right))} are in one only"
    for name in left:
        compared = subprocess.run(["cmp", left[name], right[name]], capture_output=True, text=True)
        if compared.returncode != 0:
            return (compared.stdout or compared.stderr).strip()
    return ""



"""A place to break merges in: parents, runs under strace, what is left afterwards."""
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# System calls that change the disk.
CHANGES = (
    "openat", "mkdir", "rmdir", "unlink", "unlinkat", "rename", "renameat2", "write", "pwrite64",
    "fsync", "ftruncate", "fallocate",
)
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "RUST_LOG"}


class Failed(Exception):
    """A merge did what it must not."""


class Bench:
    """The tool, two parents, two more of large tensors, and a directory to work in."""

    def __init__(self, tool, parents, large, place):
        self.tool = Path(tool).resolve()
        self.parents = [str(Path(parent).resolve()) for parent in parents]
        self.large = large
        self.place = Path(place)
        self.codes = Counter()
        # Whether strace's fault was met in the last run: threads share work as it comes.
        self.met = False

    def at(self, place):
        """The same in another directory."""
        return Bench(self.tool, self.parents, self.large, place)

    def on_large(self):
        """The same with the parents of large tensors."""
        return Bench(self.tool, self.large, self.large, self.place)

    def command(self, options, output="child"):
        """The words of a merge."""
        words = [str(self.tool), "merge", *self.parents, "-o", output, "-q", "--threads", "1"]
        return words + list(options)

    def run(self, options=(), output="child", strace=(), first=()):
        """Runs a merge to its end: (exit code or -signal, stderr)."""
        words = [*first, *self.command(options, output)]
        with tempfile.NamedTemporaryFile("r", suffix=".strace", errors="replace") as log:
            if strace:
                words = ["strace", "-f", "-qq", "-o", log.name, *strace, *words]
            result = subprocess.run(
                words, cwd=self.place, env=ENVIRONMENT, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=120, check=False,
            )
            self.met = "(INJECTED)" in log.read() or result.returncode in (-9, 137)
        self.codes[result.returncode] += 1
        return result.returncode, result.stderr.decode()

    def points(self, options, output="child", names=CHANGES):
        """Every system call of a merge that changes the disk, as strace counts them: (name, K)."""
        with tempfile.NamedTemporaryFile("r", suffix=".strace") as log:
            trace = ["strace", "-f", "-qq", "-o", log.name, "-e", "trace=" + ",".join(names)]
            subprocess.run(
                trace + self.command(options, output), cwd=self.place, env=ENVIRONMENT, check=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )
            lines = log.read().splitlines()
        counts, points = Counter(), []
        for line in lines:
            match = re.match(r"(\d+) +(\w+)\((.*)", line)
            if not match:
                continue
            thread, name, rest = match.groups()
            counts[thread, name] += 1
            reads = name == "openat" and "O_CREAT" not in rest
            to_people = name == "write" and rest.startswith(("1,", "2,"))
            # strace counts in each thread apart; the same K is reached by the first of them.
            point = (name, counts[thread, name])
            if not reads and not to_people and point not in points:
                points.append(point)
        return points

    def listing(self):
        """What lies in the place."""
        return sorted(os.listdir(self.place))

    def clear(self):
        """Removes everything in the place."""
        for name in self.listing():
            path = self.place / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def sums(self, name="child"):
        """sha256 of every file of a child; None where there is none."""
        child = self.place / name
        if not child.exists():
            return None
        return {
            str(path.relative_to(child)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(child.rglob("*")) if path.is_file()
        }


def side_by_side(bench, jobs):
    """Runs jobs in directories of their own, one per core, and gives what they return."""
    places = [bench.at(bench.place / f"job-{number}") for number in range(len(jobs))]
    for here in places:
        here.place.mkdir()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running = [pool.submit(job, here) for job, here in zip(jobs, places)]
        found = [future.result() for future in running]
    for here in places:
        shutil.rmtree(here.place)
    return found


def check(holds, *words):
    """Raises Failed with `words` unless `holds`."""
    if not holds:
        raise Failed(" ".join(str(word) for word in words))


def inject(name, how, nth):
    """strace's words for a fault at the nth call of `name` in a thread."""
    return ["-e", f"trace={name}", "-e", f"inject={name}:{how}:when={nth}"]

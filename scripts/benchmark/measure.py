"""One measured run: its processes, the state of the page cache before it, and what is cleared away after it."""
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

SECTOR_BYTES = 512  # the unit of ru_inblock and ru_oublock on Linux
SETTLE_S = 0.2
# What is read to warm the cache goes here; small, because a child's peak RSS is never reported below ours.
_SINK = bytearray(1024 * 1024)
# A process of its own takes memory, touches every page and gives it back.
_TOUCH = "import mmap, sys; size = int(sys.argv[1]); mmap.mmap(-1, size)[::4096] = bytes(size // 4096)"
# Beside what a case writes: for its own memory, and for what the system takes meanwhile.
_TOUCH_MORE = 768 * 2**20
_KEEP_FREE = 512 * 2**20


class RunFailed(Exception):
    """A measured program failed; the text says which and how it ended."""


@dataclass(frozen=True)
class Stage:
    """One process of a case: a case's wall time is that of its stages, one after the other."""

    label: str
    argv: tuple


@dataclass
class Sample:
    """What one run of a case took."""

    wall_s: float
    stages_s: dict
    peak_rss_bytes: int
    user_s: float
    sys_s: float
    read_bytes: int
    sync_after_s: float = 0.0
    child_bytes: int = 0

    @property
    def cpu_s(self):
        """User and system time together."""
        return self.user_s + self.sys_s


@dataclass
class _Usage:
    """Resources of the processes of a run, added up as they end."""

    peak_rss_bytes: int = 0
    user_s: float = 0.0
    sys_s: float = 0.0
    read_bytes: int = 0
    stages_s: dict = field(default_factory=dict)

    def add(self, label, seconds, usage):
        """Count one process that ended."""
        self.stages_s[label] = self.stages_s.get(label, 0.0) + seconds
        self.peak_rss_bytes = max(self.peak_rss_bytes, usage.ru_maxrss * 1024)
        self.user_s += usage.ru_utime
        self.sys_s += usage.ru_stime
        self.read_bytes += usage.ru_inblock * SECTOR_BYTES


def _spawn(argv, log, environment):
    """Start `argv` with its output going to `log`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
               (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
               (os.POSIX_SPAWN_OPEN, 2, os.fspath(log), flags, 0o644)]
    return os.posix_spawnp(argv[0], argv, environment, file_actions=actions)


def _wait(process):
    """Status and resources of a process that ended; one that is no longer waited for is ended."""
    try:
        _, status, spent = os.wait4(process, 0)
    except BaseException:
        os.kill(process, signal.SIGTERM)
        os.waitpid(process, 0)
        raise
    return status, spent


def run_stages(stages, log, environment):
    """Run the stages and return a Sample; wall time runs from the first start to the last end."""
    usage = _Usage()
    begin = time.perf_counter()
    for stage in stages:
        started = time.perf_counter()
        status, spent = _wait(_spawn(stage.argv, log, environment))
        usage.add(stage.label, time.perf_counter() - started, spent)
        if status:
            raise RunFailed(f"{stage.label} ended with {os.waitstatus_to_exitcode(status)}: {last_line(log)}")
    wall_s = time.perf_counter() - begin
    return Sample(wall_s, usage.stages_s, usage.peak_rss_bytes, usage.user_s, usage.sys_s, usage.read_bytes)


def last_line(log):
    """The last line that a failed program wrote."""
    lines = Path(log).read_text(errors="replace").split("\n") if Path(log).exists() else []
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "no message")


def files_under(path):
    """Every file of a directory, or the file itself."""
    path = Path(path)
    return sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]


def warm(paths):
    """Read every file, so that the page cache holds what it can of them."""
    for path in paths:
        for file in files_under(path):
            with open(file, "rb", buffering=0) as opened:
                while opened.readinto(_SINK):
                    pass


def evict(paths):
    """Ask the kernel to drop every file's pages; clean pages that nobody maps go."""
    for path in paths:
        for file in files_under(path):
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def touch_free_memory(size):
    """Have the free memory that a run will use backed by the host, where this is a virtual machine.

    A host that takes back free pages gives them again at the first touch, at the cost of a copy or more: without
    this a run pays for what happened to be free, threefold for `cp` too. Never so much that cached files must go.
    """
    with open("/proc/meminfo", encoding="ascii") as lines:
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemFree:"))
    size = min(size + _TOUCH_MORE, free - _KEEP_FREE) // 4096 * 4096
    if size > 0:
        subprocess.run([sys.executable, "-c", _TOUCH, str(size)], check=False)


def prepare(case, cold):
    """Leave no dirty page, and what the case reads in the state that it is measured in."""
    os.sync()
    if cold:
        evict(case.inputs + case.evicted)
    else:
        warm(case.inputs)
    touch_free_memory(case.writes_bytes)


def sync_files(directory):
    """Seconds that it takes to bring a directory's files to disk."""
    started = time.perf_counter()
    for file in files_under(directory):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return time.perf_counter() - started


def clear(directory):
    """Delete a run's output and wait until the disk is at rest."""
    shutil.rmtree(directory, ignore_errors=True)
    os.sync()
    time.sleep(SETTLE_S)


def measure(case, outputs, cold, environment):
    """One run of a case; `outputs` is a directory that exists only for it."""
    clear(outputs)
    outputs.mkdir(parents=True)
    log = outputs.with_suffix(".log")
    log.unlink(missing_ok=True)
    try:
        prepare(case, cold)
        sample = run_stages(case.stages, log, environment)
        sample.sync_after_s = sync_files(outputs)
        sample.child_bytes = sum(file.stat().st_size for file in outputs.rglob("*.bin"))
        return sample
    finally:
        clear(outputs)
        log.unlink(missing_ok=True)

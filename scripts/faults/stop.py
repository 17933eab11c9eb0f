"""SIGINT and SIGTERM at random moments of a merge that takes seconds: it ends within a second."""
import os
import random
import signal
import subprocess
import time

from bench import ENVIRONMENT, check
from pairs import make_pair

TENSORS = 8
ROWS, COLUMNS = 16 << 10, 4 << 10  # 128 MiB of float16
MOMENTS = 20
MOST_SECONDS = 1.0


def begin(bench, options=()):
    """A merge on all cores, running."""
    words = [str(bench.tool), "merge", *bench.parents, "-o", "child", "-q", *options]
    return subprocess.Popen(words, cwd=bench.place, env=ENVIRONMENT, stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def stop(bench, parents=None):
    """Signals at random moments; the last one's work is resumed."""
    if parents is None:
        parents = make_pair(bench.place, TENSORS, ROWS, COLUMNS)
    # Shells let what they start behind an & ignore it, and the ignoring is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    (bench.place / "out").mkdir()
    here = bench.at(bench.place / "out")
    here.parents = [str(parent) for parent in parents]
    started = time.monotonic()
    run = begin(here)
    check(run.communicate() is not None and run.returncode == 0, "the whole merge failed")
    whole_seconds = time.monotonic() - started
    golden = here.sums()
    chance, waits, ended = random.Random(5), [], 0
    for number in range(MOMENTS):
        here.clear()
        os.sync()
        sent = (signal.SIGINT, signal.SIGTERM)[number % 2]
        after = chance.uniform(0.1, 1.0) * whole_seconds
        run = begin(here)
        time.sleep(after)
        run.send_signal(sent)
        since = time.monotonic()
        said = run.communicate()[1].decode()
        waits.append((time.monotonic() - since, after))
        where = f"{sent.name} after {after:.2f} s"
        if run.returncode == 0:
            check(here.sums() == golden, where, "another child")
            continue
        ended += 1
        check(run.returncode == -sent, where, "ended with", run.returncode, said)
        left = here.listing()
        check(left in ([], [".child.partial"]), where, "left", left)
        check(not left or ".child.partial" in said, where, "said", said)
    run = begin(here, ["--resume"])
    said = run.communicate()[1].decode()
    check(run.returncode == 0 and here.sums() == golden, "--resume ended with", run.returncode, said)
    slow = max(waits)
    middle = sorted(waits)[len(waits) // 2][0]
    print(f"stop: {MOMENTS} signals over a merge of {whole_seconds:.1f} s, {ended} ended it: gone after "
          f"{middle:.2f} s in the middle and {slow[0]:.2f} s at most (sent after {slow[1]:.2f} s)", flush=True)
    check(slow[0] <= MOST_SECONDS, f"one took {slow[0]:.2f} s")

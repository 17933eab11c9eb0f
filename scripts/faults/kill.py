"""kill -9 at every system call that changes the disk, and at times."""
import random
import subprocess
import time

from bench import ENVIRONMENT, check, inject, side_by_side

MERGES = {
    "one file": [],
    "ten shards": ["--max-shard-size", "30KB"],
    "no flush": ["--no-fsync", "--max-shard-size", "100KB"],
    "two children": ["-t", "0.25,0.75", "--max-shard-size", "60KB"],
    "safetensors": ["--format", "safetensors", "--max-shard-size", "30KB"],
    "replacing": ["--overwrite", "--max-shard-size", "60KB"],
}
LARGE = ["one file", "safetensors", "two children"]
TIMES = 150
RACES = 100


def outputs(merge):
    """(what follows -o, the children's names)."""
    if merge == "two children":
        return "child-{t}", ["child-0.25", "child-0.75"]
    return "child", ["child"]


def old_child(bench, merge):
    """Where a child is to be replaced: makes the old one and gives its sums."""
    if merge != "replacing":
        return None
    code, said = bench.run(["-t", "0"])
    check(code == 0, said)
    return bench.sums()


def look(bench, merge, golden, old, where):
    """After a kill: each child absent, old or whole; then --resume makes it whole."""
    output, names = outputs(merge)
    for name in names:
        sums = bench.sums(name)
        check(sums in (old, golden[name]), merge, where, name, "is neither absent nor whole", sums)
    code, said = bench.run([*MERGES[merge], "--resume"], output)
    check(code == 0, merge, where, "--resume ended with", code, said)
    for name in names:
        check(bench.sums(name) == golden[name], merge, where, name, "was resumed to another child")
    check(bench.listing() == names, merge, where, "left", bench.listing())


def by_call(bench, merge):
    """Kills a merge before each of its system calls: number of points."""
    output, names = outputs(merge)
    bench.clear()
    code, said = bench.run(MERGES[merge], output)
    check(code == 0, said)
    golden = {name: bench.sums(name) for name in names}
    bench.clear()
    old_child(bench, merge)
    points = bench.points(MERGES[merge], output)
    killed = 0
    for name, nth in points:
        bench.clear()
        old = old_child(bench, merge)
        code, said = bench.run(MERGES[merge], output, strace=inject(name, "signal=SIGKILL", nth))
        where = f"killed at {name} {nth}"
        check(code in (-9, 137) or (code == 0 and not bench.met), merge, where, "ended with", code, said)
        killed += bench.met
        look(bench, merge, golden, old, where)
    return killed


def by_time(bench, merge, how_many):
    """Kills a merge at random times: number of points."""
    output, names = outputs(merge)
    bench.clear()
    started = time.monotonic()
    code, said = bench.run(MERGES[merge], output)
    check(code == 0, said)
    seconds = time.monotonic() - started
    golden = {name: bench.sums(name) for name in names}
    chance = random.Random(4)
    killed = 0
    for _ in range(how_many):
        bench.clear()
        old = old_child(bench, merge)
        after = chance.uniform(0.3, 1.05) * seconds
        run = subprocess.Popen(
            bench.command(MERGES[merge], output), cwd=bench.place, env=ENVIRONMENT,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        time.sleep(after)
        run.kill()
        killed += run.wait() == -9
        look(bench, merge, golden, old, f"killed after {after:.4f} s")
    return killed


def calls(bench, merge, words=""):
    """[`by_call`], told."""
    count = by_call(bench, merge)
    print(f"kill: {merge}{words}: {count} system calls, each time absent or whole, and resumed to the same", flush=True)
    return count


def times(bench, merge):
    """[`by_time`], told."""
    count = by_time(bench, merge, TIMES)
    print(f"kill: {merge}: {count} of {TIMES} times hit, and resumed to the same", flush=True)
    return count


def races(bench):
    """Two merges to one output at once, again and again: exactly one wins."""
    bench.clear()
    code, said = bench.run()
    check(code == 0, said)
    golden = bench.sums()
    told = 0
    for number in range(RACES):
        bench.clear()
        runs = [
            subprocess.Popen(
                bench.command([]), cwd=bench.place, env=ENVIRONMENT, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for _ in range(2)
        ]
        codes = sorted(run.wait() for run in runs)
        check(codes in ([0, 73], [0, 75]), "race", number, "ended with", codes)
        told += codes == [0, 75]
        check(bench.sums() == golden and bench.listing() == ["child"], "race", number, bench.listing())
    print(f"races: {RACES}, each with one winner; {told} losers met the lock, {RACES - told} the child")


def kill(bench):
    """All of it."""
    jobs = [lambda here, merge=merge: calls(here, merge) for merge in MERGES]
    jobs += [lambda here, merge=merge: calls(here.on_large(), merge, " of large tensors") for merge in LARGE]
    jobs += [lambda here, merge=merge: times(here, merge) for merge in ("one file", "safetensors", "replacing")]
    total = sum(side_by_side(bench, jobs))
    print(f"kill: {total} points in all")
    races(bench)

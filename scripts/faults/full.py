"""Full, read-only and failing disks, and directories that go away."""
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

from bench import ENVIRONMENT, check, inject, side_by_side
from mounts import ext4, free, sh, tmpfs

SIZES = 20
READS = ("pread64", "preadv2")
ERRORS = {
    "openat": ["ENOSPC", "EDQUOT"], "mkdir": ["ENOSPC", "EDQUOT"], "unlink": ["EIO"],
    "rename": ["ENOSPC"], "renameat2": ["EDQUOT", "EIO"], "write": ["ENOSPC", "EIO"],
    "pwrite64": ["ENOSPC", "EDQUOT", "EIO"], "fsync": ["EIO", "ENOSPC"], "ftruncate": ["EFBIG", "EIO"],
    "fallocate": ["ENOSPC", "EDQUOT", "EIO"],
}


def golden_of(bench, options=()):
    """The sums of an uninterrupted merge."""
    bench.clear()
    code, said = bench.run(options)
    check(code == 0, said)
    sums = bench.sums()
    bench.clear()
    return sums


def refused(bench, code, said, codes, where, path=".child.partial"):
    """After a failure: its code and sentence (none where `path` is), and nothing is left."""
    check(code in codes, where, "ended with", code, said)
    check(path is None or (said.startswith("error: ") and path in said), where, "said", said)
    check(bench.listing() == [], where, "left", bench.listing())


def sizes(bench, golden):
    """tmpfs of many sizes, and of many numbers of inodes."""
    met = Counter()
    settings = [f"size={64 + 32 * n}k" for n in range(SIZES)]
    settings += [f"size=4m,nr_inodes={n}" for n in range(2, 2 + SIZES)]
    for options in settings:
        with tmpfs(bench.place / "disk", options) as disk:
            here = bench.at(disk)
            before = free(disk)
            code, said = here.run()
            met[code] += 1
            if code == 0:
                check(here.sums() == golden, options, "another child")
                continue
            refused(here, code, said, (73, 74), options, "")
            check(free(disk) == before, options, "did not give its room back")
    print(f"full: tmpfs of {SIZES} sizes and {SIZES} numbers of inodes: exit codes {dict(met)}")
    check(met[73] > 0 and met[0] > 0, "no size was too small, or none large enough", met)


def filled_meanwhile(bench):
    """Another program takes the room while the child is written."""
    for spare in range(SIZES):
        with tmpfs(bench.place / "disk", "size=2m") as disk:
            here = bench.at(disk)
            strace = ["strace", "-f", "-qq", "-o", "/dev/null"]
            strace += inject("ftruncate", "delay_exit=700000", 1)
            run = subprocess.Popen(
                strace + here.command([]), cwd=disk, env=ENVIRONMENT, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )
            weights = disk / ".child.partial" / "pytorch_model.bin"
            while not (weights.exists() and weights.stat().st_size):
                time.sleep(0.001)
            filler = disk / "filler"
            filler.write_bytes(bytes(max(0, free(disk)[0] - spare * 16384)))
            said = run.communicate()[1].decode()
            filler.unlink()
            refused(here, run.returncode, said, (74,), f"{spare * 16} kB spare")
            check("nothing was left" in said, said)
            check(free(disk)[0] == 2 << 20, "did not give its room back", free(disk))
    print(f"full: a disk that fills up while {SIZES} children are written: 74, and the room is free again")


def read_only(bench):
    """A file system that can't be written to."""
    with tmpfs(bench.place / "disk", "size=4m") as disk:
        sh("mount", "-o", "remount,ro", str(disk))
        here = bench.at(disk)
        code, said = here.run()
        check(code == 73 and "Read-only file system" in said, code, said)
        check(here.listing() == [], here.listing())
    print("full: read-only: 73")


def injected(bench, name, options):
    """Every system call that changes the disk fails once with each error that it may have."""
    met, count = Counter(), 0
    for call, nth in bench.points(options):
        bench.clear()
        for error in ERRORS.get(call, []):
            code, said = bench.run(options, strace=inject(call, f"error={error}", nth))
            where = f"{name}: {error} at {call} {nth}"
            if not bench.met:
                check(code == 0, where, "was not met, and ended with", code, said)
                bench.clear()
                continue
            met[code] += 1
            count += 1
            codes = (73,) if call == "mkdir" else (74,)
            path = "child" if call == "renameat2" else ".child.partial"
            if call == "fsync" and "flush directory" in said:
                path = ": "
            if call == "write" and not said.startswith("error: "):
                # strace counts in each thread apart, and the write that failed was the message's, too.
                path = None
            refused(bench, code, said, codes, where, path)
    print(f"full: {name}: {count} injected errors, exit codes {dict(met)}, nothing left", flush=True)


def without_renameat2(bench, golden):
    """File systems that know no renameat2: a plain rename does it."""
    for error in ("EINVAL", "ENOSYS"):
        for old in (False, True):
            bench.clear()
            if old:
                bench.run(["-t", "0"])
            fault = ["-e", "trace=renameat2", "-e", f"inject=renameat2:error={error}"]
            code, said = bench.run(["--overwrite"], strace=fault)
            check(code == 0 and bench.sums() == golden, error, old, code, said)
            check(bench.listing() == ["child"], bench.listing())
    print("full: without renameat2: a new child and a replaced one are whole")


def whole_of(bench):
    """The sums of a child, without what an interrupted run left in it."""
    return {name: found for name, found in bench.sums().items() if ".partial/" not in name}


def mount_point(bench, golden):
    """An output that is a mount point: killed at every step, it is marked or whole."""
    met, points = Counter(), None
    names = ("rename", "unlink", "fsync", "rmdir")
    nth = 0
    while points is None or nth <= len(points):
        with tmpfs(bench.place / "child", "size=4m") as disk:
            if points is None:
                points = bench.points([], names=names)
                check(bench.sums() == golden, "another child in a mount point")
                code, said = bench.run(["--overwrite"])
                check(code == 73 and "mount point" in said, code, said)
                code, said = bench.run(["--resume"])
                check(code == 0, code, said)
                continue
            strace = inject(points[nth - 1][0], "signal=SIGKILL", points[nth - 1][1]) if nth else ()
            code, said = bench.run(strace=strace)
            check(code == (-9 if nth else 0), nth, code, said)
            entries = set(here for here in bench.at(disk).listing() if not here.endswith(".partial"))
            marked = ".INCOMPLETE" in entries
            check(marked or not entries or whole_of(bench) == golden, nth, entries)
            met["marked" if marked else "whole" if entries else "absent"] += 1
            code, said = bench.run(["--resume"])
            check(code == 0 and bench.sums() == golden, nth, code, said, bench.at(disk).listing())
        nth += 1
    print(f"full: an output that is a mount point, killed at {len(points)} steps: {dict(met)}, then whole")


def delayed(bench):
    """ext4 on a device that runs out of room: writes succeed, and the flush fails."""
    met = Counter()
    for spare in range(SIZES):
        with tmpfs(bench.place / "host", "size=64m") as host:
            with ext4(host / "image", bench.place / "disk", "48M") as disk:
                sh("sync", "-f", str(disk.place))
                used = 64 * 1024 - free(host)[0] // 1024
                sh("mount", "-o", f"remount,size={used + 16 * spare}k", str(host))
                here = bench.at(disk.place)
                code, said = here.run()
                met[code] += 1
                child = disk.place / "child"
                check(code in (0, 74), spare, code, said)
                check(child.exists() == (code == 0), spare, "a child with exit code", code)
                check(code == 0 or said.startswith("error: cannot "), said)
                sh("mount", "-o", "remount,size=64m", str(host))
    check(met[74] > 0, "no flush failed", met)
    print(f"full: ext4 on a device without room, {SIZES} sizes: exit codes {dict(met)}")


def unreadable(bench, golden):
    """A parent on a device that fails, and failing reads one by one."""
    with ext4(bench.place / "image", bench.place / "disk", "24M") as disk:
        for parent in bench.parents:
            shutil.copytree(parent, disk.place / Path(parent).name)
        disk.umount()
        disk.mount()
        names = [disk.place / Path(parent).name for parent in bench.parents]
        (bench.place / "out").mkdir()
        here = bench.at(bench.place / "out")
        here.parents = [str(name) for name in names]
        # The directories are known; what the files hold is not.
        sh("ls", "-lR", str(disk.place))
        sh("truncate", "-s", "1M", str(disk.image))
        code, said = here.run()
        sh("truncate", "-s", "24M", str(disk.image))
        check(code in (66, 74) and str(disk.place) in said, code, said)
        check(here.listing() == [], here.listing())
        print(f"full: a parent on a failing device: {code}, {said.splitlines()[0]}")
    (bench.place / "out").rmdir()
    met, reads = Counter(), Counter()
    for here in (bench, bench.on_large()):
        points = here.points([], names=READS)
        here.clear()
        for name, nth in points:
            code, said = here.run(strace=inject(name, "error=EIO", nth))
            met[code] += 1
            reads[name] += 1
            # The dynamic linker reads, too.
            check(code == 127 or (code == 74 and "pytorch_model" in said), name, nth, code, said)
            check(here.listing() == [], name, nth, here.listing())
    check(set(reads) == set(READS), "not every way of reading was used", reads)
    print(f"full: failing reads {dict(reads)}: exit codes {dict(met)}, nothing left")


def removed(bench):
    """The output's directory goes away while the child is written."""
    (bench.place / "above").mkdir()
    strace = ["strace", "-f", "-qq", "-o", "/dev/null"] + inject("fsync", "delay_enter=500000", 1)
    run = subprocess.Popen(
        strace + bench.command([], "above/child"), cwd=bench.place, env=ENVIRONMENT,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )
    while not (bench.place / "above/.child.partial/journal.jsonl").exists():
        time.sleep(0.001)
    time.sleep(0.2)
    shutil.rmtree(bench.place / "above")
    said = run.communicate()[1].decode()
    refused(bench, run.returncode, said, (74,), "removed underneath")
    print("full: a directory that is removed underneath: 74")


def interrupted_calls(bench, golden):
    """Calls that a signal cuts short with EINTR are made again."""
    large = bench.on_large()
    jobs = [(bench, golden, call) for call in ("openat", "pread64", "pwrite64", "write", "fsync")]
    jobs.append((large, golden_of(large), "preadv2"))
    for here, sums, call in jobs:
        for nth in (1, 2, 3, 5, 8):
            here.clear()
            code, said = here.run(strace=inject(call, "error=EINTR", nth))
            # The dynamic linker opens and reads, too, and does not try again.
            check(code == 127 or (code == 0 and here.sums() == sums), call, nth, code, said)
    bench.clear()
    print("full: calls that end with EINTR are made again")


def bound(bench):
    """A parent that is mounted at a second place is the same parent there."""
    place = bench.place / "bound"
    place.mkdir()
    sh("mount", "--bind", bench.parents[0], str(place))
    try:
        for output in ("bound", "bound/child"):
            code, said = bench.run(["--overwrite"], output)
            check(code == 73 and "parent" in said, output, code, said)
    finally:
        sh("umount", str(place))
        place.rmdir()
    check(bench.listing() == [], bench.listing())
    print("full: an output in a parent that is mounted elsewhere: 73")


def full(bench):
    """All of it."""
    golden = golden_of(bench)
    sizes(bench, golden)
    filled_meanwhile(bench)
    read_only(bench)
    removed(bench)
    mount_point(bench, golden)
    delayed(bench)
    unreadable(bench, golden)
    bench.clear()
    bound(bench)
    interrupted_calls(bench, golden)
    without_renameat2(bench, golden)
    bench.clear()
    side_by_side(bench, [
        lambda here: injected(here, "ten shards", ["--max-shard-size", "30KB"]),
        lambda here: injected(here, "one file", []),
        lambda here: injected(here.on_large(), "large tensors", []),
    ])

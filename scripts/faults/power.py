"""Power cuts: an ext4 file system is shut down without a flush, and mounted again."""
import fcntl
import os
import shutil
import struct
from collections import Counter

from bench import CHANGES, check, inject
from kill import MERGES
from mounts import ext4, sh

# linux/ext4.h: EXT4_IOC_SHUTDOWN is _IOR('X', 125, __u32); 2 means that the journal is not flushed.
SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
POINTS = 40


def cut(disk):
    """What was not flushed is lost, as if the power had gone."""
    handle = os.open(disk.place, os.O_RDONLY)
    fcntl.ioctl(handle, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
    os.close(handle)
    disk.umount()
    disk.mount()


def left(bench):
    """The listing, without what ext4 makes."""
    return [name for name in bench.listing() if name != "lost+found"]


def spread(points):
    """Points over the whole merge: all flushes, renames and removals, and some of the rest."""
    steps = [point for point in points if point[0] not in ("write", "pwrite64", "openat", "ftruncate")]
    others = [point for point in points if point not in steps]
    every = max(1, len(others) * 2 // POINTS)
    return steps + others[::every]


def merge_cut(bench, disk, merge, words=""):
    """Power cuts at points of a merge: number of points."""
    options = MERGES[merge]
    output = "above/it/child" if merge == "one file" else "child"
    (bench.place / "scratch").mkdir()
    scratch = bench.at(bench.place / "scratch")
    code, said = scratch.run(options)
    check(code == 0, said)
    golden = scratch.sums()
    scratch.clear()
    points = spread(scratch.points(options, output, CHANGES))
    met = Counter()
    # At last one after the end.
    for name, nth in [*points, (None, 0)]:
        here = bench.at(disk.place)
        old = None
        if merge == "replacing":
            here.run(["-t", "0"])
            old = here.sums()
            sh("sync", "-f", str(disk.place))
        strace = inject(name, "signal=SIGKILL", nth) if name else ()
        code, said = here.run(options, output, strace=strace)
        where = f"{merge}: power cut at {name} {nth}"
        # What one thread did the last time, two may do now: then it is cut at its end.
        check(code in (-9, 137) if here.met else code == 0, where, code, said)
        cut(disk)
        sums = here.sums(output)
        check(sums in (old, golden), where, "is neither absent nor whole", sums)
        check(code != 0 or sums == golden, where, "a finished merge was lost")
        met["whole" if sums == golden else "absent" if sums is None else "old"] += 1
        code, said = here.run([*options, "--resume"], output)
        check(code == 0, where, "--resume ended with", code, said)
        check(here.sums(output) == golden, where, "was resumed to another child")
        check(left(here) == [output.split("/")[0]], where, "left", left(here))
        for entry in left(here):
            shutil.rmtree(disk.place / entry)
        # Or the next power cut brings back what was removed.
        sh("sync", "-f", str(disk.place))
    scratch.clear()
    scratch.place.rmdir()
    print(f"power: {merge}{words}: {sum(met.values())} power cuts: {dict(met)}; each resumed to the same", flush=True)


def power(bench):
    """All of it."""
    with ext4(bench.place / "image", bench.place / "disk", "48M") as disk:
        for merge in ("one file", "ten shards", "replacing"):
            merge_cut(bench, disk, merge)
        merge_cut(bench.on_large(), disk, "one file", " of large tensors")

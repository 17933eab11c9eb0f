#!/usr/bin/env python3
"""Holds the merge on a GPU to the merge on the CPU: values, determinism, memory, speed.

scripts/gpu_check.sh calls it. Exit 0 where every child is what it must be, 1 where one is not; speeds are shown and
not judged. Without a GPU the check itself can be tried: --stand-in devices=1 --shape 0.1b.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from gpu.compare import distance, same_bytes
from gpu.link import Holder, Watch, rates

ROOT = Path(__file__).resolve().parent.parent
PAIRS = ("llama", "gpt2", "neox")
OPTIONS = (
    ("-t", "0.3"),
    ("-t", "0.5"),
    ("-t", "0.7", "--method", "linear", "--extend", "inherit"),
    ("-t", "0.4", "--dtype", "float32", "--extend", "bridge"),
    ("-t", "0.6", "--dtype", "bfloat16", "--extend", "mean"),
)
# What CUDA itself takes of a GPU's memory in a process, at most.
CONTEXT_BYTES = 1536 * 1024 * 1024
LIMIT = 1024 * 1024 * 1024
STAND_IN = "LLM_SLERP_MERGE_TEST_DEVICES"


class MergeFailed(Exception):
    """The tool ended with an error."""


class Check:
    """The runs and what came of them."""

    def __init__(self, given, work):
        self.given, self.work = given, work
        self.rows, self.failed = [], False

    def say(self, name, result, good=None):
        """A row of the table; `good` false fails the check."""
        verdict = {None: "", True: "ok", False: "FAILED"}[good]
        self.failed |= good is False
        self.rows.append((name, str(result), verdict))
        print(f"{name}: {result} {verdict}".rstrip(), flush=True)

    def merge(self, parents, out, device, *options, may_fail=False):
        """Runs the tool; its result, or None where it ended with 69 and may."""
        environment = dict(os.environ)
        environment.pop(STAND_IN, None)
        if self.given.stand_in and device != "cpu":
            environment[STAND_IN] = self.given.stand_in
        command = [self.given.binary, "merge", *map(str, parents), "-o", str(out), "--device", device, "--json",
                   "--quiet", "--no-fsync", "--overwrite", *options]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode == 69 and may_fail:
            return None
        if done.returncode != 0:
            raise MergeFailed(f"exit {done.returncode} of {' '.join(command)}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def on_device(self, result):
        """The part of the merged tensors that the device made."""
        merged = [tensor for tensor in result["tensors"] if tensor["action"] in ("slerp", "linear")]
        there = [tensor for tensor in merged if tensor["device"] != "cpu"]
        return f"{len(there)} of {len(merged)} tensors on {', '.join(result['devices'])}", len(there) == len(merged)


def fixtures(check):
    """Small pairs with every option, against the CPU; t = 0 and 1 to the bit."""
    device = check.given.device
    for pair in PAIRS:
        parents = [ROOT / "tests/data" / pair / side for side in ("primary", "secondary")]
        children = [check.work / "cpu", check.work / "device"]
        for options in OPTIONS:
            check.merge(parents, children[0], "cpu", *options)
            result = check.merge(parents, children[1], device, *options)
            found = distance(*children)
            check.say(f"{pair} {' '.join(options)}", found, found.is_near and check.on_device(result)[1])
        for t in ("0", "1"):
            check.merge(parents, children[0], "cpu", "-t", t)
            check.merge(parents, children[1], device, "-t", t)
            same = same_bytes(*children)
            check.say(f"{pair} -t {t}", "the same bytes" if same else "other bytes", same)


def make_pair(check):
    """A pair of big parents in memory."""
    out = check.work / "pair"
    subprocess.run([sys.executable, str(ROOT / "scripts/make_pair.py"), "--shape", check.given.shape, "--vocab", "32000",
                    "32032", "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
    return [out / "a", out / "b"]


def big(check, parents):
    """The big pair: against the CPU, twice, in little memory, on all devices; and how fast."""
    given, children = check.given, [check.work / "cpu", check.work / "device"]
    threads = ("--threads", str(given.threads)) if given.threads else ()
    seconds = {}
    for device, child in (("cpu", children[0]), (given.device, children[1])):
        runs = [check.merge(parents, child, device, *threads) for _ in range(given.runs)]
        seconds[device] = min(run["seconds"] for run in runs)
        moved = runs[0]["bytes_read"] + runs[0]["bytes_written"]
        result = runs[0]
    text, all_there = check.on_device(result)
    check.say("big pair, made by", text, all_there)
    found = distance(*children)
    check.say("big pair, CPU and device", found, found.is_near)
    again = check.work / "again"
    for name, device, options in (
        ("another run", given.device, ()),
        ("1 GiB of the device's memory, 3 threads", given.device, ("--device-memory", str(LIMIT), "--threads", "3")),
        ("64 MiB of the device's memory", given.device, ("--device-memory", "64MiB")),
        ("several devices", given.devices, ()),
    ):
        if device is None:
            continue
        peak = None
        if given.stand_in:
            check.merge(parents, again, device, *options)
        else:
            with Watch(given.index) as watch:
                check.merge(parents, again, device, *options)
            peak = watch.peak
        same = same_bytes(children[1], again)
        check.say(f"big pair, {name}", "the same bytes" if same else "other bytes", same)
        if peak is not None and "--device-memory" in options:
            most = CONTEXT_BYTES + (LIMIT if str(LIMIT) in options else 64 << 20)
            check.say("  device memory at its peak", f"{peak / 1e9:.2f} GB, allowed {most / 1e9:.2f}", peak <= most)
    shutil.rmtree(again)
    for name, value in seconds.items():
        check.say(f"big pair, {moved / 1e9:.2f} GB moved, best of {given.runs}, {name}",
                  f"{value:.2f} s, {moved / value / 1e9:.2f} GB/s")
    return moved / seconds[given.device]


def full_device(check, parents):
    """A GPU whose memory somebody else holds."""
    for leave in (1024, 256):
        holder = Holder(check.given.index, leave << 20)
        try:
            result = check.merge(parents, check.work / "device", check.given.device, may_fail=True)
        finally:
            holder.release()
        if result is None:
            check.say(f"{leave} MiB free on the device", "refused with 69", True)
            continue
        found = distance(check.work / "cpu", check.work / "device")
        check.say(f"{leave} MiB free on the device", f"{check.on_device(result)[0]}; {found}", found.is_near)


def link(check, merge_rate):
    """The link's rates, and the merge's beside them."""
    up, down, both = rates(check.given.index)
    for name, rate in (("up", up), ("down", down), ("two up for one down", both)):
        check.say(f"link, page-locked copies, {name}", f"{rate / 1e9:.2f} GB/s")
    part = merge_rate / both
    check.say("merge on the device, of the link's rate", f"{part:.2f}, {'' if part >= 0.8 else 'not '}the 0.8 aimed at")


def reading(check, parents):
    """What the host's side can do: read every byte of both parents and check it."""
    seconds = os.times().elapsed
    subprocess.run([check.given.binary, "verify", "--quiet", *map(str, parents)], check=True, capture_output=True)
    seconds = os.times().elapsed - seconds
    size = sum(path.stat().st_size for parent in parents for path in parent.glob("*.bin"))
    check.say("host, reading and checking both parents (verify)", f"{size / seconds / 1e9:.2f} GB/s")


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--index", type=int, default=0, help="number of the GPU (default 0)")
    parser.add_argument("--shape", default="1.1b", help="of make_pair.py: 0.1b, 1.1b (default, 9 GB in --dir), 7b")
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"), help="where the pair is made (default /dev/shm)")
    parser.add_argument("--runs", type=int, default=3, help="timed runs on each (default 3)")
    parser.add_argument("--threads", type=int, help="worker threads of the timed runs (default: the tool's)")
    parser.add_argument("--stand-in", help="no GPU: let the CPU stand in, in words of src/engine/faults.rs (in a checkout, not packed)")
    given = parser.parse_args()
    given.device = f"cuda:{given.index}"
    count = 2 if given.stand_in and "devices=2" in given.stand_in else 0 if given.stand_in else torch.cuda.device_count()
    given.devices = f"cuda:{given.index},{1 if given.index == 0 else 0}" if count > 1 else None
    return given


def run(check):
    """Every check in order."""
    fixtures(check)
    parents = make_pair(check)
    merge_rate = big(check, parents)
    reading(check, parents)
    if check.given.stand_in:
        check.say("link, memory of a GPU", "not measured: the CPU stood in for a GPU")
    else:
        link(check, merge_rate)
        full_device(check, parents)


def main():
    """All checks, then the table."""
    given = arguments()
    subprocess.run([given.binary, "devices"], check=True)
    if not given.stand_in and not torch.cuda.is_available():
        sys.exit("error: python3's PyTorch sees no GPU (without one, --stand-in devices=1 tries this check itself)")
    with tempfile.TemporaryDirectory(prefix="gpu-check-", dir=given.dir) as work:
        check = Check(given, Path(work))
        try:
            run(check)
        except MergeFailed as failure:
            check.say("a run of the tool", failure, False)
    width = max(len(name) for name, _, _ in check.rows)
    print("\n" + "\n".join(f"{name:<{width}}  {result}  {verdict}".rstrip() for name, result, verdict in check.rows))
    sys.exit(1 if check.failed else 0)


if __name__ == "__main__":
    main()

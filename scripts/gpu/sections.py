"""What is checked, section by section. Each runs in a process of its own, after those whose results it needs."""
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from gpu import hardware
from gpu.compare import distance, same_bytes
from gpu.tool import Failed, Hung, Tool, size

ROOT = Path(__file__).resolve().parent.parent.parent
PAIRS = ("llama", "gpt2", "neox")
OPTIONS = (
    ("-t", "0.3"),
    ("-t", "0.5"),
    ("-t", "0.7", "--method", "linear", "--extend", "inherit"),
    ("-t", "0.4", "--dtype", "float32", "--extend", "bridge"),
    ("-t", "0.6", "--dtype", "bfloat16", "--extend", "mean"),
)
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float8": torch.float8_e4m3fn}
# What CUDA itself takes of a GPU's memory in a process, at most.
CONTEXT_BYTES = 1536 << 20
LIMIT = 1 << 30
# A merge is as fast as it should be at this part of what bounds it.
AIM = 0.8


class Section:
    """What sections have: the tool, the device, a directory, and what earlier ones measured."""

    def __init__(self, given):
        self.given, self.tool, self.work = given, Tool(given), given.work
        self.device = f"cuda:{given.index}"
        self._state = self.work / "state.json"
        self.known = json.loads(self._state.read_text()) if self._state.exists() else {}

    def know(self, **values):
        """Keeps results for later sections."""
        self.known.update(values)
        self._state.write_text(json.dumps(self.known))

    def say(self, name, result, good=None, slow=False):
        """A row of the table; `good` false fails the check."""
        verdict = "FAILED" if good is False else "SLOW" if slow else "" if good is None else "ok"
        print("ROW " + json.dumps({"name": name, "result": str(result), "verdict": verdict}), flush=True)

    def merge(self, name, parents, out, device, *options, allowed=False, **how):
        """A merge; what the tool said besides is shown, and a fallback that is not `allowed` is a failure."""
        merge = self.tool.merge(parents, out, device, *options, **how)
        for line in merge.said if merge else ():
            print(f"    the tool says: {line}", flush=True)
        if merge and merge.fallbacks and device != "cpu" and not allowed:
            self.say(f"{name}: fallback", merge.fallbacks[0], False)
        return merge

    def attempt(self, name, *merge, **how):
        """The same, or None with a row that says how it failed: what comes after it is not lost."""
        try:
            return self.merge(name, *merge, **how)
        except Failed as failure:
            self.say(name, failure, False)
            return None

    def tiny(self):
        """Seconds of a merge of next to nothing: what starting takes."""
        parents = [ROOT / "tests/data/llama" / side for side in ("primary", "secondary")]
        out = self.work / "tiny"
        runs = [self.merge("tiny merge", parents, out, self.device).seconds for _ in range(2)]
        shutil.rmtree(out)
        return min(runs)


def environment(section):
    """Which card, driver, libraries."""
    code, text, _ = section.tool.run("devices", device=section.device)
    print(text, end="", flush=True)
    seen = json.loads(section.tool.run("devices", "--json", device=section.device)[1])
    names = [device["name"] for device in seen["devices"]]
    section.say("the tool sees", ", ".join(f"{device['name']} {device['model']}" for device in seen["devices"]) or "no device",
                code == 0 and seen["cuda_available"] and section.device in names)
    card = seen["devices"][section.given.index]["model"] if section.device in names else "none"
    if not section.given.stand_in:
        query = "driver_version,pcie.link.gen.current,pcie.link.width.current,clocks.mem,memory.used"
        done = subprocess.run(["nvidia-smi", f"--id={section.given.index}", f"--query-gpu={query}", "--format=csv,noheader"],
                              capture_output=True, text=True, check=False)
        section.say(f"nvidia-smi {query}", done.stdout.strip() or "not there")
    section.say("the host", f"{os.cpu_count()} cores, {shutil.disk_usage(section.work).free / 1e9:.0f} GB free in {section.work}")
    section.know(card=card, writes_nothing=section.tool.can_leave_out_writing(
        [ROOT / "tests/data/llama" / side for side in ("primary", "secondary")], section.work / "nothing"))


def link(section):
    """The link's rates, in large copies and in those that the engine makes."""
    for text, block, repeats in (("256 MiB", hardware.BLOCK, 8), ("4 MiB", 4 << 20, 256)):
        up, down, both = hardware.rates(section.given.index, block, repeats)
        section.say(f"link, copies of {text}", f"up {up / 1e9:.1f}, down {down / 1e9:.1f}, two up for one down {both / 1e9:.1f} GB/s")
    section.know(link=both)


def kernels(section):
    """How fast the arithmetic is where nothing is copied."""
    rates = {name: hardware.kernels(section.given.index, dtype) for name, dtype in DTYPES.items()}
    section.say("kernels, one stream", ", ".join(f"{name} {rate / 1e9:.2f}" for name, rate in rates.items()) + " 10^9 elements/s")
    section.know(kernels=rates)


def make_pair(section, dtype):
    """A pair of big parents."""
    if section.given.shape == "fixtures":
        return [ROOT / "tests/data/llama" / side for side in ("primary", "secondary")]
    out = section.work / f"pair-{dtype}"
    parents = [out / "a", out / "b"]
    if not out.exists():
        made = "float16" if dtype == "float8" else dtype
        subprocess.run([sys.executable, str(ROOT / "scripts/make_pair.py"), "--shape", section.given.shape, "--dtype", made,
                        "--vocab", "32000", "32032", "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
        if dtype == "float8":
            for path in [path for parent in parents for path in parent.glob("*.bin")]:
                tensors = torch.load(path, map_location="cpu", weights_only=True)
                torch.save({name: tensor.to(DTYPES[dtype]) for name, tensor in tensors.items()}, path)
    return parents


def big(section, dtype):
    """The big pair of a dtype: is the child the CPU's, how long does it take, and what bounds that."""
    parents, children = make_pair(section, dtype), [section.work / "cpu", section.work / "device"]
    given, name = section.given, f"big {dtype}"
    read = verify_rate(section, parents)
    best = {}
    for case, device, options, how in (
        ("cpu", "cpu", (), {}),
        ("device", section.device, (), {}),
        ("t = 0", section.device, ("-t", "0"), {}),
        ("nothing written", section.device, (), {"sink": "none"}),
    ):
        if "sink" in how and not section.known.get("writes_nothing"):
            continue
        out = children[0] if device == "cpu" else children[1] if case == "device" else section.work / "other"
        threads = ("--threads", str(given.threads)) if given.threads else ()
        runs = []
        # One that failed is not tried again.
        while len(runs) < given.runs and None not in runs:
            runs.append(section.attempt(f"{name}, {case}", parents, out, device, *threads, *options, **how))
        shutil.rmtree(section.work / "other", ignore_errors=True)
        if None in runs:
            continue
        best[case] = min(run.seconds for run in runs)
        if case == "device":
            section.say(f"{name}, made by", *runs[0].on_device)
            if "cpu" in best:
                found = distance(*children)
                section.say(f"{name}, device and CPU", found, found.is_near)
    if "device" not in best:
        return
    start = section.tiny()
    child = sum(path.stat().st_size for path in children[1].glob("*.bin"))
    write = hardware.write_rate(section.work, max(min(child, 2 << 30), 1 << 20))
    bounds = {"read": size(parents) / read, "write": child / write}
    if section.known.get("link"):
        bounds["link"] = (size(parents) + child) / section.known["link"]
    if section.known.get("kernels"):
        item = torch.empty(0, dtype=DTYPES[dtype]).element_size()
        bounds["kernels"] = child / item / section.known["kernels"][dtype]
    seconds = {case: max(value - (0 if case == "cpu" else start), 0.0) for case, value in best.items()}
    section.say(f"{name}, seconds without the start ({start:.2f})",
                ", ".join(f"{case} {value:.2f}" for case, value in seconds.items()))
    bound = max(bounds, key=bounds.get)
    part = bounds[bound] / seconds["device"] if seconds["device"] else float("inf")
    judged = not given.stand_in and given.shape != "fixtures" and "link" in bounds
    section.say(f"{name}, bounds in seconds", ", ".join(f"{what} {value:.2f}" for what, value in bounds.items()))
    section.say(f"{name}, bound by {bound}", f"{part:.2f} of its rate, {AIM} aimed at" + ("" if judged else "; not judged"),
                part >= AIM or None if judged else None, slow=judged and part < AIM)
    section.know(cases=[*section.known.get("cases", ()), {"dtype": dtype, "seconds": seconds, "bounds": bounds,
                                                          "bytes": size(parents) + child, "bound": bound, "part": part}])
    if dtype != "float16" and given.shape != "fixtures":
        shutil.rmtree(parents[0].parent)


def verify_rate(section, parents):
    """What the host's side can do: bytes per second of reading and checking both parents, once they are in memory."""
    seconds = []
    # The first time for those that are next to nothing, which shows what starting takes.
    for checked in ([ROOT / "tests/data/llama/primary"], parents, parents):
        started = time.perf_counter()
        code, _, said = section.tool.run("verify", "--quiet", *checked)
        seconds.append(time.perf_counter() - started)
        if code != 0:
            section.say("verify of the pair", said.strip().splitlines()[-1:], False)
    return size(parents) / max(min(seconds[1:]) - seconds[0], 0.001)


def same(section):
    """The child does not depend on memory, workers, devices or chance."""
    parents, again = make_pair(section, "float16"), section.work / "again"
    if not (section.work / "device").exists():
        section.merge("big pair", parents, section.work / "device", section.device)
    several = torch.cuda.device_count() if not section.given.stand_in else 1 + ("devices=2" in section.given.stand_in)
    for name, device, options in (
        ("another run", section.device, ()),
        ("1 GiB of the device's memory, 3 threads", section.device, ("--device-memory", str(LIMIT), "--threads", "3")),
        ("64 MiB of the device's memory", section.device, ("--device-memory", "64MiB")),
        ("two devices", f"cuda:{section.given.index},{1 if section.given.index == 0 else 0}" if several > 1 else None, ()),
    ):
        if device is None:
            continue
        if section.given.stand_in:
            merge, peak = section.attempt(name, parents, again, device, *options), None
        else:
            with hardware.Watch(section.given.index) as watch:
                merge = section.attempt(name, parents, again, device, *options)
            peak = watch.peak
        if merge is None:
            continue
        equal = same_bytes(section.work / "device", again)
        section.say(f"big pair, {name}", "the same bytes" if equal else "other bytes", equal)
        if peak is not None and "--device-memory" in options:
            most = CONTEXT_BYTES + (LIMIT if str(LIMIT) in options else 64 << 20)
            section.say("  device memory at its peak", f"{peak / 1e9:.2f} GB, allowed {most / 1e9:.2f}", peak <= most)


def fixtures(section):
    """Small pairs with every option, against the CPU; t = 0 and 1 to the bit."""
    children = [section.work / "small-cpu", section.work / "small-device"]
    for pair in PAIRS:
        parents = [ROOT / "tests/data" / pair / side for side in ("primary", "secondary")]
        for options in (*OPTIONS, ("-t", "0"), ("-t", "1")):
            name = f"{pair} {' '.join(options)}"
            try:
                merges = [section.merge(name, parents, child, device, *options)
                          for child, device in zip(children, ("cpu", section.device))]
            except Failed as failure:
                section.say(name, failure, False)
                # What hung once would hang again.
                if isinstance(failure, Hung):
                    break
                continue
            if options[-1] in ("0", "1"):
                equal = same_bytes(*children)
                section.say(name, "the same bytes" if equal else "other bytes", equal)
            else:
                found = distance(*children)
                text, all_there = merges[1].on_device
                section.say(name, found if all_there else f"{found}; {text}", found.is_near and all_there)


def full(section):
    """A GPU whose memory somebody else holds: the child is right all the same, or it is refused."""
    parents, child = make_pair(section, "float16"), section.work / "crowded"
    if not (section.work / "cpu").exists():
        section.merge("big pair", parents, section.work / "cpu", "cpu")
    for leave in (1024, 256):
        holder = hardware.Holder(section.given.index, leave << 20)
        try:
            merge = section.merge(f"{leave} MiB free", parents, child, section.device, allowed=True, codes=(0, 69))
        finally:
            holder.release()
        if merge is None:
            section.say(f"{leave} MiB free on the device", "refused with 69", True)
            continue
        found = distance(section.work / "cpu", child)
        section.say(f"{leave} MiB free on the device", f"{merge.on_device[0]}; {found}", found.is_near)


# Name, what it runs, whether it needs a GPU, and its part of --section-timeout.
SECTIONS = {
    "environment": (environment, False, 0.5),
    "link": (link, True, 0.5),
    "kernels": (kernels, True, 0.5),
    "float16": (lambda section: big(section, "float16"), False, 1),
    "same": (same, False, 1),
    "full": (full, True, 1),
    "bfloat16": (lambda section: big(section, "bfloat16"), False, 1),
    "float32": (lambda section: big(section, "float32"), False, 1),
    "float8": (lambda section: big(section, "float8"), False, 1),
    "fixtures": (fixtures, False, 1),
}

"""Runs the tool and reads what it says: its result, its time, and whether it fell back to something slower."""
import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

STAND_IN = "LLM_SLERP_MERGE_TEST_DEVICES"
SINK = "LLM_SLERP_MERGE_TEST_SINK"
# What the tool says where it goes on, but not as it should on a GPU. The child is right; the check is not passed.
FALLBACKS = re.compile(r"no page-locked memory|default stream|out of memory|computing on the CPU|instead of the GPU"
                       r"|libtorch_cuda\.so can't be opened")
# What it says of the parents, and where it is.
NOISE = re.compile(r"^\[\S+ (INFO|DEBUG) *\] |^(warning|hint): |^merged \d|^[\d.]+ s on |nothing was written")
MERGING = re.compile(r"merging took ([\d.]+) s")


class Failed(Exception):
    """The tool ended with an error, or not at all."""


class Hung(Failed):
    """The tool did not end in time."""


@dataclass
class Merge:
    """A merge that was run."""

    result: dict
    # Seconds from the first worker's start to the last byte, without the start of program and GPU.
    seconds: float
    said: list
    fallbacks: list

    @property
    def on_device(self):
        """How many of the merged tensors the device made, and whether it made all."""
        merged = [tensor for tensor in self.result["tensors"] if tensor["action"] in ("slerp", "linear")]
        there = [tensor for tensor in merged if tensor["device"] != "cpu"]
        text = f"{len(there)} of {len(merged)} tensors on {', '.join(self.result['devices'])}"
        return text, len(there) == len(merged)


class Tool:
    """The program, with what is the same in all runs."""

    def __init__(self, given):
        self.given = given

    def run(self, *words, device=None, sink=None):
        """Runs it; exit code, stdout and stderr. A run that does not end in time is killed with all its threads."""
        environment = {key: value for key, value in os.environ.items() if key not in (STAND_IN, SINK, "RUST_LOG")}
        if self.given.stand_in and device not in (None, "cpu"):
            environment[STAND_IN] = self.given.stand_in
        if sink:
            environment[SINK] = sink
        command = [str(self.given.binary), *map(str, words)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   errors="replace", env=environment, start_new_session=True)
        try:
            out, err = process.communicate(timeout=self.given.run_timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise Hung(f"no end after {self.given.run_timeout:.0f} s, killed: {' '.join(command[1:])}") from None
        return process.returncode, out, err

    def merge(self, parents, out, device, *options, codes=(0,), sink=None):
        """A Merge; None where it ended with another of `codes` than 0 or wrote nothing."""
        words = ["merge", *parents, "-o", out, "--device", device, "--json", "-v", "--no-progress", "--no-fsync",
                 "--overwrite", *options]
        code, stdout, stderr = self.run(*words, device=device, sink=sink)
        said = [line for line in stderr.splitlines() if line.strip()]
        nothing = sink == "none" and code == 2 and any("nothing was written" in line for line in said)
        if code not in codes and not nothing:
            raise Failed(f"exit {code} of {' '.join(map(str, words))}: {' / '.join(said[-4:])}")
        took = [float(found[1]) for found in map(MERGING.search, said) if found]
        if sink == "none" and not nothing:
            raise Failed("the program can't leave out writing: build it with --features test-devices")
        return Merge(
            result=json.loads(stdout) if code == 0 else {},
            seconds=took[-1] if took else 0.0,
            said=[line for line in said if FALLBACKS.search(line) or not NOISE.search(line)],
            fallbacks=[line for line in said if FALLBACKS.search(line)],
        ) if code == 0 or nothing else None

    def can_leave_out_writing(self, parents, out):
        """Whether the program was built for tests."""
        try:
            self.merge(parents, out, "cpu", sink="none")
        except Failed:
            return False
        finally:
            shutil.rmtree(out, ignore_errors=True)
        return True


def size(parents):
    """Bytes of the parents' weight files."""
    return sum(path.stat().st_size for parent in parents for path in Path(parent).glob("*.bin"))

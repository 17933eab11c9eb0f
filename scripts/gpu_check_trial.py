#!/usr/bin/env python3
"""Tries gpu_check.py itself, with the CPU in a GPU's place: what is wrong must be told, and must not hide the rest.

    gpu_check_trial.py --binary PROGRAM        one that was built for tests (debug, or --features test-devices)
"""
import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CHECK = Path(__file__).with_name("gpu_check.py")


def check(binary, work, stand_in, *options):
    """Exit code of a check on the fixtures, and its rows: name, result, verdict."""
    report = Path(work, "report.md")
    report.unlink(missing_ok=True)
    command = [sys.executable, CHECK, "--binary", binary, "--stand-in", stand_in, "--shape", "fixtures", "--runs", "1",
               "--dir", work, "--report", report, *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if not report.exists():
        sys.exit(f"error: no report: {done.stdout}{done.stderr}")
    rows = re.findall(r"^\| (.*) \| (.*) \| (ok|FAILED|SLOW|) ?\|$", report.read_text(), re.MULTILINE)
    return done.returncode, rows


def expect(what, holds, rows):
    """Ends with the rows where something is not as it must be."""
    if not holds:
        sys.exit(f"error: {what}:\n" + "\n".join(map(str, rows)))


def main():
    """Without a fault, with a fallback, without memory, with a hang."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, required=True)
    binary = parser.parse_args().binary.resolve()
    with tempfile.TemporaryDirectory(prefix="gpu-check-trial-") as work:
        code, rows = check(binary, work, "devices=2", "--only", "environment", "float16", "same", "float8", "fixtures")
        names = {name for name, _, verdict in rows if verdict == "ok"}
        expect("a sound stand-in passes", code == 0 and len(names) > 25, rows)
        print(f"sound: exit 0, {len(names)} rows ok")

        for fault, words in (("stream=none", "default stream"), ("pinned=none", "page-locked"),
                             ("oom=1x1000000", "out of memory")):
            code, rows = check(binary, work, fault, "--only", "environment", "float16", "same")
            told = [name for name, result, verdict in rows if verdict == "FAILED" and words in result]
            others = [name for name, result, _ in rows if result == "the same bytes"]
            expect(f"{fault} is told, beside the others", code == 1 and told and len(others) == 3, rows)
            print(f"{fault}: exit 1, told in {len(told)} rows, the {len(others)} comparisons there")

        # llama has fewer tensors to copy up than the others.
        code, rows = check(binary, work, "hang=50", "--only", "environment", "float16", "fixtures",
                           "--run-timeout", "10")
        told = [name for name, result, verdict in rows if verdict == "FAILED" and "no end after 10 s" in result]
        others = [name for name, _, verdict in rows if verdict == "ok"]
        expect("a hanging program is told, beside the others",
               code == 1 and told and not any("llama" in name for name in told) and len(others) >= 10, rows)
        print(f"hang: exit 1, told in {len(told)} rows, {len(others)} others ok")

        code, rows = check(binary, work, "hang=2", "--only", "environment", "same", "--section-timeout", "10",
                           "--run-timeout", "60")
        told = [name for name, result, verdict in rows if verdict == "FAILED" and "no end after 10 s" in result]
        expect("a hanging section is told", code == 1 and told == ["section same"], rows)
        print("hanging section: exit 1, told, the environment's rows there")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Holds the merge on a GPU to the merge on the CPU: values, determinism, memory, and speed by what bounds it.

scripts/gpu_check.sh calls it. Every section runs in a process of its own with a time limit, so that one that fails or
hangs leaves the others. Exit 1 where a child is not what it must be, a section did not end, or the tool fell back to
something slower; SLOW is shown and does not count. Without a GPU the check itself can be tried: --stand-in devices=1
--shape fixtures, with a program that was built for tests.
"""
import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from gpu.sections import SECTIONS, Section


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--index", type=int, default=0, help="number of the GPU (default 0)")
    parser.add_argument("--shape", default="1.1b",
                        help="of make_pair.py: 0.1b, 1.1b (default, 12 GB in --dir), 7b; or fixtures, which are tiny")
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"), help="where pairs and children are (default /dev/shm)")
    parser.add_argument("--runs", type=int, default=3, help="timed runs of each case, the best counts (default 3)")
    parser.add_argument("--threads", type=int, help="worker threads of the timed runs (default: the tool's)")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--run-timeout", type=float, default=90, help="seconds for a run of the tool (default 90)")
    parser.add_argument("--section-timeout", type=float, default=240, help="seconds for a section (default 240)")
    parser.add_argument("--report", type=Path, help="also write the tables, in Markdown, to this file")
    parser.add_argument("--stand-in", help="no GPU: let the CPU stand in, in words of src/engine/faults.rs (needs a program "
                                           "built for tests: debug, or --features test-devices)")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def run_section(name, limit, work):
    """Runs one section in a process of its own; its rows."""
    command = [sys.executable, __file__, *sys.argv[1:], "--section", name, "--work", str(work)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
                               start_new_session=True)
    rows, said = [], []

    def listen():
        for line in process.stdout:
            if line.startswith("ROW "):
                row = json.loads(line[4:])
                rows.append(row)
                line = "  ".join(filter(None, row.values())) + "\n"
            print(line, end="", flush=True)

    readers = [threading.Thread(target=listen, daemon=True),
               threading.Thread(target=lambda: said.extend(process.stderr), daemon=True)]
    for reader in readers:
        reader.start()
    try:
        code = process.wait(limit)
        trouble = f"broke down with {code}: {said[-1].strip() if said else 'no word'}" if code else None
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        trouble = f"no end after {limit:.0f} s, killed"
    for reader in readers:
        reader.join(10)
    if trouble:
        print("".join(said[-30:]), end="", flush=True)
        rows.append({"name": f"section {name}", "result": trouble, "verdict": "FAILED"})
        print(f"section {name}  {trouble}  FAILED", flush=True)
    return rows


def tables(rows, known, given):
    """The report: every row, and what bounds each case."""
    date = datetime.date.today().isoformat()
    lines = [f"{known.get('card', 'no device')}, {date}, {os.cpu_count()} cores, pairs of {given.shape} in {given.dir}", "",
             "| parents | moved | CPU | device | t = 0 | nothing written | read | write | link | kernels | bound by |",
             "|---|---|---|---|---|---|---|---|---|---|---|"]
    for case in known.get("cases", ()):
        cells = [case["dtype"], f"{case['bytes'] / 1e9:.2f} GB"]
        cells += [f"{case['seconds'][name]:.2f} s" if name in case["seconds"] else "–"
                  for name in ("cpu", "device", "t = 0", "nothing written")]
        cells += [f"{case['bounds'][name]:.2f} s" if name in case["bounds"] else "–" for name in ("read", "write", "link", "kernels")]
        cells.append(f"{case['bound']}, {case['part']:.2f} of its rate")
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| what | result | |", "|---|---|---|"]
    lines += [f"| {row['name']} | {row['result'].replace('|', '/')} | {row['verdict']} |" for row in rows]
    return "\n".join(lines) + "\n"


def main():
    """All sections, then the tables."""
    given = arguments()
    if given.section:
        SECTIONS[given.section][0](Section(given))
        return
    rows, known = [], {}
    with tempfile.TemporaryDirectory(prefix="gpu-check-", dir=given.dir) as work:
        for name, (_, needs_gpu, part) in SECTIONS.items():
            if given.only and name not in given.only:
                continue
            print(f"== {name}", flush=True)
            if needs_gpu and given.stand_in:
                rows.append({"name": f"section {name}", "result": "left out: the CPU stood in for a GPU", "verdict": ""})
                continue
            rows += run_section(name, given.section_timeout * part, work)
        state = Path(work, "state.json")
        known = json.loads(state.read_text()) if state.exists() else {}
    report = tables(rows, known, given)
    print("\n" + report)
    if given.report:
        given.report.write_text(report)
    counts = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in ("ok", "SLOW", "FAILED")}
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    sys.exit(1 if counts["FAILED"] or not counts["ok"] else 0)


if __name__ == "__main__":
    main()

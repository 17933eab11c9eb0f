#!/usr/bin/env python3
"""Run the real binary on the fixtures and on variants of them, and check what it promises (docs/usage.md).

One PASS or FAIL line per check, a count at the end, exit status 1 if one failed. Run by conformance.sh,
which makes the environment.

    conformance.py [--binary PATH] [--only WORD ...] [--long] [--real] [--list]
"""
import argparse
import importlib
import os
import tempfile
import time
import warnings
from pathlib import Path

from checks.core import CHECKS, REPOSITORY, Context

CHECK_MODULES = ["inspecting", "values", "extension", "dimensions", "with_transformers", "refusals", "families",
                 "formats", "vocabularies", "recipes", "big", "real"]


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=REPOSITORY / "target/release/llm-slerp-merge")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="checks whose name has one of these words")
    parser.add_argument("--long", action="store_true", help="also the shard above 4 GiB and the 1.1B pair (20 GB of disk)")
    parser.add_argument("--real", action="store_true", help="also files that others wrote (downloads wheels into .cache)")
    parser.add_argument("--scratch", type=Path, help="directory for children (default: the system's)")
    parser.add_argument("--list", action="store_true", help="print the names of the checks")
    return parser.parse_args()


def quiet_libraries():
    """One thread, no progress bars, no network."""
    os.environ.update(TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    warnings.filterwarnings("ignore")
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def selected(given):
    """The checks asked for."""
    groups = {"default"} | ({"long"} if given.long else set()) | ({"real"} if given.real else set())
    return [item for item in CHECKS
            if item.group in groups and (not given.only or any(word in item.name for word in given.only))]


def main():
    """Run the checks asked for."""
    given = arguments()
    quiet_libraries()
    for name in CHECK_MODULES:
        importlib.import_module(f"checks.{name}")
    chosen = selected(given)
    if given.list:
        print("\n".join(item.name for item in chosen))
        return
    if not given.binary.exists():
        raise SystemExit(f"{given.binary} is not there; build it with cargo build --release")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="conformance-", dir=given.scratch) as scratch:
        context = Context(given.binary, scratch)
        for item in chosen:
            context.run_check(item)
    print(f"{context.passed} passed, {context.failed} failed, {len(chosen)} checks, {time.monotonic() - began:.0f} s")
    raise SystemExit(1 if context.failed or not context.passed else 0)


if __name__ == "__main__":
    main()

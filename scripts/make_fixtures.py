#!/usr/bin/env python3
"""Make what is committed under tests/data: parents, expected children, small files for the reader.

Deterministic: seeds are fixed and one thread computes; texts come from the standard library, so the
bytes belong to the Python version that tests/data/README.md names.

    make_fixtures.py [--out tests/data] [--only parents expected reader wild safetensors]
"""
import argparse
import shutil
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PARTS = {"parents": ["llama", "gpt2", "neox"], "expected": ["expected"], "reader": ["reader"], "wild": ["wild"],
         "safetensors": []}


def make(part, data):
    """Make one part anew; imports stay here because torch and transformers are slow to load."""
    for folder in PARTS[part]:
        shutil.rmtree(data / folder, ignore_errors=True)
    if part == "parents":
        from fixtures.parents import make_all
    elif part == "expected":
        from fixtures.expected import make_all
    elif part == "safetensors":
        from fixtures.safetensors_files import make_all
    elif part == "wild":
        from fixtures.wild import make_all
    else:
        from fixtures.reader_files import make_all
    make_all(data)


def main():
    """Parse the command line and make the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "tests" / "data")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for part in given.only:
        make(part, given.out)


if __name__ == "__main__":
    main()

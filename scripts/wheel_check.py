#!/usr/bin/env python3
"""Installs the wheel and uses it: in this environment, which has PyTorch 2.11, and in others that are made of its files.

scripts/wheel.sh --check calls it. Nothing is fetched: other Pythons' environments are laid out by hand, as pip lays them
out, and those of links as `uv pip install --link-mode symlink` does it. Exit 1 where one does not run.
"""
import argparse
import filecmp
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARENTS = [ROOT / "tests/data/llama" / side for side in ("primary", "secondary")]
PROGRAM = "llm-slerp-merge"
TORCH = Path(importlib.util.find_spec("torch").submodule_search_locations[0])


def run(*command, code=0, **variables):
    """Runs a command without the variables that could lead to another PyTorch; what it printed."""
    environment = {key: value for key, value in os.environ.items()
                   if key not in ("LIBTORCH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH")}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False,
                          env={**environment, **variables})
    if done.returncode != code:
        sys.exit(f"error: exit {done.returncode} of {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def use(name, command, torch, scratch, expected):
    """The program finds this PyTorch, with its CUDA, and makes the child that cargo's own program makes."""
    seen = json.loads(run(*command, "devices", "--json"))
    places = [seen["libtorch"], seen["cuda_library"]]
    wanted = [torch / "lib" / library for library in ("libtorch_cpu.so", "libtorch_cuda.so")]
    for place, library in zip(places, wanted):
        if library.exists() and (place is None or not Path(place).samefile(library)):
            sys.exit(f"error: {name}: {place} was found, not {library}")
    child = scratch / "child"
    run(*command, "merge", *PARENTS, "-o", child, "-t", "0.3", "--device", "cpu", "--overwrite", "--quiet")
    if not filecmp.cmp(child / "pytorch_model.bin", expected / "pytorch_model.bin", shallow=False):
        sys.exit(f"error: {name}: another child than that of cargo's own program")
    print(f"{name}: libtorch {seen['libtorch_version']}, {'with' if wanted[1].exists() else 'without'} CUDA; the same child")


def unpack(wheel, prefix, packages):
    """Lays a wheel out below a prefix, as pip does."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            head, *rest = Path(member.filename).parts
            if head.endswith(".data"):
                place = prefix / {"scripts": "bin", "data": "."}[rest[0]] / Path(*rest[1:])
            else:
                place = prefix / packages / member.filename
            place.parent.mkdir(parents=True, exist_ok=True)
            data = archive.read(member)
            if member.filename.endswith("RECORD"):
                up = os.path.relpath(prefix, prefix / packages).encode()
                data = re.sub(rb"^\S+?\.data/scripts/", up + b"/bin/", data, flags=re.MULTILINE)
            place.write_bytes(data)
            place.chmod(member.external_attr >> 16 & 0o777 or 0o644)


def link_files(source, target):
    """The same directory, of links."""
    for path in source.rglob("*"):
        if path.is_file() and not path.name.endswith((".pyc", ".h", ".hpp")):
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path)


def installed(wheel, scratch, expected):
    """pip installs it here, all of it works, and pip takes all of it away."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    prefix = Path(sys.prefix)
    # Without an index: the PyTorch that is here must be one that the wheel asks for.
    run(*pip, "install", "--quiet", "--no-index", wheel)
    try:
        use("pip, in an environment", [prefix / "bin" / PROGRAM], TORCH, scratch, expected)
        use("python -m", [sys.executable, "-m", "llm_slerp_merge"], TORCH, scratch, expected)
        page = (prefix / "share/man/man1" / f"{PROGRAM}-merge.1").read_text()
        completions = (prefix / "share/bash-completion/completions" / PROGRAM).read_text()
        if ".SH OPTIONS" not in page or "--extend" not in completions:
            sys.exit("error: man pages or completions are not whole")
        link = scratch / "a link to the program"
        link.symlink_to(prefix / "bin" / PROGRAM)
        use("through a link from elsewhere", [link], TORCH, scratch, expected)
    finally:
        run(*pip, "uninstall", "--quiet", "--yes", PROGRAM)
    left = [path for path in prefix.rglob("*slerp*") if path.is_file()]
    if left:
        sys.exit(f"error: pip left {left}")


def laid_out(wheel, scratch, expected):
    """Other Pythons, other systems' directories, environments of links, and none."""
    for packages in ("lib/python3.10/site-packages", "lib/python3.14/site-packages", "lib/python3.14t/site-packages",
                     "lib/python3.12/dist-packages", "lib64/python3.13/site-packages"):
        prefix = scratch / packages.replace("/", "-")
        unpack(wheel, prefix, packages)
        # Directories of links: torch's files are in another place than they seem, and CUDA's in a third.
        link_files(TORCH / "lib", prefix / packages / "torch/lib")
        (prefix / packages / "torch/version.py").symlink_to(TORCH / "version.py")
        if (TORCH.parent / "nvidia").is_dir():
            link_files(TORCH.parent / "nvidia", prefix / packages / "nvidia")
        use(f"links in {packages}", [prefix / "bin" / PROGRAM], TORCH, scratch, expected)
    # Without PyTorch in its own environment it does not start; Python's leads it to another one.
    bare = scratch / "bare"
    unpack(wheel, bare, "lib/python3.11/site-packages")
    said = run(bare / "bin" / PROGRAM, "--version", code=127)
    if "libtorch_cpu.so" not in said:
        sys.exit(f"error: without PyTorch the loader says {said}")
    seen = json.loads(run(sys.executable, "-m", "llm_slerp_merge", "devices", "--json",
                          PYTHONPATH=str(bare / "lib/python3.11/site-packages")))
    if not Path(seen["libtorch"]).samefile(TORCH / "lib/libtorch_cpu.so"):
        sys.exit(f"error: {seen['libtorch']} was found")
    print("python -m, PyTorch in another environment: found")


def main():
    """Everything that the wheel promises."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, required=True, help="the program as cargo built it")
    parser.add_argument("wheel", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wheel-check-") as work:
        scratch = Path(work)
        expected = scratch / "expected"
        run(given.binary.resolve(), "merge", *PARENTS, "-o", expected, "-t", "0.3", "--device", "cpu", "--quiet")
        wheel = given.wheel.resolve()
        installed(wheel, scratch, expected)
        laid_out(wheel, scratch, expected)


if __name__ == "__main__":
    main()

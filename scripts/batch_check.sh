#!/usr/bin/env bash
# The long checks of `batch`: 50 merges over the six fixtures, three of them broken; killed at ten
# moments; what a sweep reads; manifests against the schema that the tool prints.
#
#     scripts/batch_check.sh           # builds the tool first
#     TOOL=target/release/llm-slerp-merge scripts/batch_check.sh
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [[ -z ${TOOL:-} ]]; then
    step "build" cargo build --locked
    TOOL=${CARGO_TARGET_DIR:-target}/debug/llm-slerp-merge
fi
tool=$(realpath "$TOOL")
repository=$PWD
if ! command -v strace >/dev/null; then
    command -v apt-get >/dev/null || die "strace is missing: install it"
    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y strace >/dev/null
fi
venv=.venv-batch
requirements=scripts/batch-requirements.txt
if ! cmp -s "$requirements" "$venv/installed.txt"; then
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$venv/installed.txt"
fi
python=$PWD/$venv/bin/python

dir=$(mktemp -d /tmp/batch-check.XXXXXX)
trap 'rm -rf "$dir"' EXIT
"$python" - "$repository/tests/data" "$dir" <<'PYTHON'
import json, sys

data, out = sys.argv[1:]
merges = []
for number in range(50):
    family = ["llama", "gpt2", "neox"][number % 3]
    sides = ["primary", "secondary"]
    merges.append({
        "primary": f"{data}/{family}/{sides[number // 3 % 2]}",
        "secondary": f"{data}/{family}/{sides[number // 6 % 2]}",
        "output": f"out/{number}",
        "t": number / 50,
    })
with open(f"{out}/sound.json", "w") as file:
    json.dump({"merges": merges}, file)
merges[7]["dtpye"] = "float16"
merges[20]["primary"] = "nowhere"
merges[33]["secondary"] = f"{data}/gpt2/secondary"
with open(f"{out}/broken.json", "w") as file:
    json.dump({"merges": merges}, file)
pair = {"primary": f"{data}/llama/primary", "secondary": f"{data}/llama/secondary"}
for name, values in {"one": [0.5], "five": [0.1, 0.3, 0.5, 0.7, 0.9]}.items():
    sweep = [{**pair, "t": t, "output": name + "-{t}"} for t in values]
    with open(f"{out}/{name}.json", "w") as file:
        json.dump({"merges": sweep}, file)
PYTHON
cd "$dir"
children() { (cd out && find . -type f -print0 | sort -z | xargs -0 sha256sum); }
# code COMMAND...: its exit code.
code() {
    local code=0
    "$@" || code=$?
    echo "$code"
}

say "== 50 merges, three broken"
[[ $(code "$tool" batch broken.json 2>errors) == 2 ]] || die "planning errors: expected exit code 2"
[[ $(grep -c '^error: ' errors) == 3 && ! -e out ]] || die "expected three errors and no child"
grep '^error: ' errors >&2
[[ $(code "$tool" batch broken.json --keep-going --jobs 2 2>/dev/null) == 1 ]] || die "expected exit code 1"
made=$(find out -mindepth 1 -maxdepth 1 -type d ! -name '.*' | wc -l)
[[ $made == 47 ]] || die "expected 47 children, found $made"
find out -printf '%p %i %T@ %C@\n' | sort >before
"$tool" batch broken.json --keep-going --quiet 2>/dev/null || true
find out -printf '%p %i %T@ %C@\n' | sort | diff before - >&2 || die "a second run changed something"
say "47 children; a second run changes nothing"

say "== killed at ten moments"
rm -rf out
started=$(date +%s%N)
"$tool" batch sound.json --jobs 2 --quiet
took=$((($(date +%s%N) - started) / 1000000))
children >clean.sha256
say "a clean run: 50 children, $(wc -l <clean.sha256) files, $took ms"
for moment in 1 2 3 4 5 6 7 8 9 10; do
    rm -rf out
    "$tool" batch sound.json --jobs 2 --quiet &
    pid=$!
    sleep "$("$python" -c "print($took * $moment / 11 / 1000)")"
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    mkdir -p out
    left=$(find out -mindepth 1 -maxdepth 1 -type d ! -name '.*' | wc -l)
    "$tool" batch sound.json --jobs 2 --quiet
    children | diff clean.sha256 - >&2 || die "killed at moment $moment, the children differ"
    say "killed with $left children there, run again: sha256 as of a clean run"
done

say "== what a sweep reads"
# parents_read MANIFEST: bytes that pread took from weight files of the fixtures.
parents_read() {
    rm -f trace.*
    # A file per thread: in one file, calls that overlap are torn apart.
    strace -ff -y -e trace=pread64 -o trace "$tool" batch "$1" --quiet
    cat trace.* | grep -F "$repository/tests/data" | grep -F '.bin>' |
        awk '{ bytes += $NF } END { printf "%.0f\n", bytes }'
}
one=$(parents_read one.json)
five=$(parents_read five.json)
say "one child: $one bytes read from the parents' weight files; five children: $five"
((one > 0 && five == one)) || die "five values of t over one pair must read what one does"

say "== manifests against the schema"
"$tool" batch --schema >schema.json
"$python" - "$repository" <<'PYTHON'
import json, sys
from pathlib import Path

import jsonschema

schema = json.load(open("schema.json"))
checker = jsonschema.Draft202012Validator
checker.check_schema(schema)
page = Path(sys.argv[1], "docs/batch.md").read_text()
block = page[page.index('    {\n      "defaults"'):]
example = json.loads("".join(line for line in block[:block.index("\n\n")].splitlines()))
for name, manifest in {"docs/batch.md": example, "50 merges": json.load(open("sound.json"))}.items():
    checker(schema).validate(manifest)
    print(f"{name}: valid", file=sys.stderr)
wrong = [{}, {"merges": [{"dtpye": "keep"}]}, {"merges": [{"t": 2}]}, {"merges": [{"t": []}]},
         {"merges": [{"overwrite": "yes"}]}, {"merges": [], "default": {}}, {"merges": [{"extend": "x"}]},
         json.load(open("broken.json"))]
for manifest in wrong:
    assert not checker(schema).is_valid(manifest), manifest
print(f"{len(wrong)} wrong manifests: refused", file=sys.stderr)
PYTHON
say "== all passed: $SECONDS s"

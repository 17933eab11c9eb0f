#!/usr/bin/env bash
# Checks merge-job.yaml against Kubernetes' own schemas, strictly (no unknown keys), with the
# kubernetes-validate package in a virtual environment of its own. No cluster is needed.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

venv=.venv-kubernetes
requirements=scripts/kubernetes/requirements.txt
manifest=scripts/kubernetes/merge-job.yaml
if ! cmp -s "$requirements" "$venv/installed.txt"; then
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$venv/installed.txt"
fi

# valid VERSION FILE
valid() { "$venv/bin/kubernetes-validate" --strict --quiet -k "$1" "$2"; }

for version in 1.33 1.37; do
    valid "$version" "$manifest" || die "$manifest is no manifest of Kubernetes $version"
    say "$manifest: valid for Kubernetes $version"
done

# A check that lets anything pass is none.
broken=$(mktemp --suffix=.yaml)
trap 'rm -f "$broken"' EXIT
for change in 's/completionMode:/completionsMode:/' 's/parallelism: 2/parallelism: "two"/'; do
    sed "$change" "$manifest" >"$broken"
    ! cmp -s "$manifest" "$broken" || die "$change changes nothing"
    ! valid 1.37 "$broken" >/dev/null 2>&1 || die "the check does not see $change"
done
say "two broken copies: refused"

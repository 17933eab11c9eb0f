#!/usr/bin/env bash
# Makes the wheel, dist/llm_slerp_merge-….whl, from `cargo build --release`, and the debug symbols beside it.
#   scripts/wheel.sh [--check]       --check installs and uses it in the environment of scripts/conformance.sh, too
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case ${1:-} in
"" | --check) ;;
*) die "usage: scripts/wheel.sh [--check]" ;;
esac
for command in readelf objcopy strip; do
    command -v "$command" >/dev/null || die "$command is missing: install it (Debian, Ubuntu: apt-get install binutils)"
done

need_compilers
step "libtorch" scripts/libtorch.sh
step "build" cargo build --locked --release
venv=.venv-wheel
requirements=scripts/wheel-requirements.txt
if ! cmp -s "$requirements" "$venv/installed.txt"; then
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$venv/installed.txt"
fi
export PYTHONDONTWRITEBYTECODE=1
binary=${CARGO_TARGET_DIR:-target}/release/llm-slerp-merge
"$venv/bin/python" scripts/wheel.py --binary "$binary" --out dist
if [[ ${1:-} == --check ]]; then
    [[ -x .venv-conformance/bin/python ]] || die "run scripts/conformance.sh first, which makes an environment with PyTorch"
    step "use of the wheel" .venv-conformance/bin/python scripts/wheel_check.py --binary "$binary" dist/*.whl
fi

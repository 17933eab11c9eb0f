#!/usr/bin/env bash
# Holds the merge on a GPU to the merge on the CPU, on a machine with PyTorch 2.11.0 and no Rust.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<'TEXT'
usage: scripts/gpu_check.sh --pack DIR
       scripts/gpu_check.sh [OPTIONS OF gpu_check.py]

With --pack, where the tool is built: makes DIR, with the program, what it is checked on, and this script (under
60 MiB). Take it to a machine with a GPU whose `python3` imports PyTorch 2.11.0 with CUDA, and numpy; there

       DIR/scripts/gpu_check.sh

links that PyTorch and checks: correctness on fixtures and on pairs of 1.1 billion elements, memory, and what bounds the
speed. It works in a checkout too, with Rust, or with the program that a wheel installed. Exit 1 where a child is not what
it must be or the program fell back. The options of gpu_check.py:

TEXT
    python3 scripts/gpu_check.py --help 2>/dev/null || true
}

# Most MiB of a packed directory.
most=60

# pack DIR: everything that a machine without Rust needs.
pack() {
    local to=$1 size
    need_compilers
    step "libtorch" scripts/libtorch.sh
    # Built for tests, it can leave out writing, so that files and device are told apart.
    step "build" cargo build --locked --release --features test-devices
    mkdir -p "$to/scripts/fixtures" "$to/tests/data"
    strip -o "$to/llm-slerp-merge" "${CARGO_TARGET_DIR:-target}/release/llm-slerp-merge"
    cp scripts/{gpu_check.sh,gpu_check.py,lib.sh,libtorch.sh,make_pair.py} "$to/scripts/"
    cp scripts/fixtures/{__init__,torch_zip}.py "$to/scripts/fixtures/"
    cp -r scripts/gpu "$to/scripts/"
    rm -rf "$to/scripts/gpu/__pycache__"
    cp -r tests/data/{llama,gpt2,neox} "$to/tests/data/"
    size=$(du -sm "$to" | cut -f1)
    ((size < most)) || die "$to takes $size MiB, which is not under $most"
    say "$to is ready, $size MiB: take it along and run $to/scripts/gpu_check.sh there"
}

for argument in "$@"; do
    case $argument in
    -h | --help)
        usage
        exit
        ;;
    --pack=*) die "write --pack DIR" ;;
    esac
done
if [[ ${1:-} == --pack ]]; then
    (($# == 2)) || die "--pack needs a directory, and nothing else"
    case $2 in /*) to=$2 ;; *) to=$called_from/$2 ;; esac
    pack "$to"
    exit
fi

if [[ -x llm-slerp-merge ]]; then
    binary=$PWD/llm-slerp-merge
    [[ -e libtorch/lib/libtorch_cpu.so ]] || step "libtorch" env -u LIBTORCH scripts/libtorch.sh --system
elif ! command -v cargo >/dev/null && command -v llm-slerp-merge >/dev/null; then
    binary=$(command -v llm-slerp-merge)
else
    need_compilers
    [[ -n ${LIBTORCH:-} || -e libtorch/lib/libtorch_cpu.so ]] || step "libtorch" scripts/libtorch.sh --system
    step "build" cargo build --locked --release --features test-devices
    binary=${CARGO_TARGET_DIR:-$PWD/target}/release/llm-slerp-merge
fi
export PYTHONDONTWRITEBYTECODE=1
# Paths among the options are the user's.
here=$PWD binary=$(realpath "$binary")
cd "$called_from"
exec python3 "$here/scripts/gpu_check.py" --binary "$binary" "$@"

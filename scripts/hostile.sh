#!/usr/bin/env bash
# The long check of hostile files: every case of the corpus, the large ones too, through the real program
# under strace. Nothing may be started, no socket opened, no file outside the declared set opened; each case
# must end with its code in less than a second, in at most 64 MiB more than a small good file takes.
#   scripts/hostile.sh [WORD]           only the cases whose name holds WORD
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if ! command -v strace >/dev/null; then
    sudo=$([[ $(id -u) == 0 ]] || echo sudo)
    say "== strace is missing: installing it"
    $sudo apt-get update -q && $sudo apt-get install -qy strace
fi
need_compilers
scripts/libtorch.sh
step "build" cargo build --locked --release
exec python3 scripts/hostile_check.py target/release/llm-slerp-merge "${1:-}"

#!/usr/bin/env bash
# Fuzzes the readers and the plan: any bytes must be read or refused, never end in a crash, a hang or much memory.
#   scripts/fuzz.sh [SECONDS] [TARGET...]       each target for so long (60 s); targets: pickle file safetensors index plan
#   scripts/fuzz.sh --runs N [TARGET...]        each target so many times
#   scripts/fuzz.sh --keep [TARGET...]          shrinks what was found to fuzz/corpus/TARGET.hex, which the tests run
# What was found stays in fuzz/target/corpus; an input that fails in fuzz/artifacts. Needs no nightly Rust and no torch.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

limit=-max_total_time=60 keep=
case "${1:-}" in
--runs) limit=-runs=${2:?} && shift 2 ;;
--keep) keep=yes && shift ;;
[0-9]*) limit=-max_total_time=$1 && shift ;;
esac
targets=("$@")
((${#targets[@]})) || targets=(pickle file safetensors index plan)

need_compilers
if ! cargo fuzz --version >/dev/null 2>&1; then
    step "cargo-fuzz" cargo install --locked cargo-fuzz
    PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
fi
# Safe Rust needs no sanitizer, and without one the stable compiler will do and runs are twice as many.
step "build" cargo fuzz build -O -s none
python3 scripts/fuzz_seeds.py fuzz/target/seeds
programs=fuzz/target/$(rustc -vV | sed -n 's/^host: //p')/release

# The longest input of a target: longer ones find nothing more and make every run slower.
declare -A longest=([pickle]=4096 [file]=12288 [safetensors]=4096 [index]=4096 [plan]=256)
for target in "${targets[@]}"; do
    [[ -n "${longest[$target]:-}" ]] || die "no such target: $target"
    corpus=fuzz/target/corpus/$target
    mkdir -p "$corpus" "fuzz/target/seeds/$target" "fuzz/artifacts/$target"
    if [[ -n "$keep" ]]; then
        small=$(mktemp -d)
        "$programs/$target" -set_cover_merge=1 -max_len=2048 "$small" "$corpus" "fuzz/target/seeds/$target"
        python3 scripts/fuzz_seeds.py --keep "$target" "$small"
        rm -r "$small"
        continue
    fi
    step "$target" "$programs/$target" "$limit" "-max_len=${longest[$target]}" -timeout=5 -rss_limit_mb=512 \
        -print_final_stats=1 -verbosity=1 "-artifact_prefix=fuzz/artifacts/$target/" "$corpus" "fuzz/target/seeds/$target"
done

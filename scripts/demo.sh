#!/usr/bin/env bash
# From a bare clone to a merged model: sets up, builds, and merges the sample pair that the repository carries.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

primary=tests/data/llama/primary
secondary=tests/data/llama/secondary
child=demo-child
tool=${CARGO_TARGET_DIR:-target}/release/llm-slerp-merge

# show COMMAND...: runs the tool as a user would type it.
show() {
    printf '\n$ %s' "$tool" >&2
    printf ' %s' "$@" >&2
    printf '\n' >&2
    "$tool" "$@"
}

need_compilers
step "libtorch" scripts/libtorch.sh
step "build" cargo build --locked --release

rm -rf "$child"
show plan "$primary" "$secondary" --output "$child"
show merge "$primary" "$secondary" --output "$child"
show inspect "$child"

say "
The child is in $child/: a model directory as transformers loads it.
What the merge did to each tensor is in $child/slerp_merge.json.

Now with your own models:

    $tool merge PRIMARY SECONDARY --output CHILD

and \`$tool merge --help\` for the options."

#!/usr/bin/env bash
# Changes the code in small ways and says which changes the library's own tests don't notice.
set -euo pipefail
usage() {
    cat <<'TEXT'
usage: scripts/mutants.sh [merge | format | all] [OPTIONS of cargo-mutants]

Runs cargo-mutants (installs it into .cache/mutants where it is missing) on the decisions, src/merge, with their own tests,
and on every twelfth mutant of the readers and writers, src/format. Needs no libtorch. Takes about an hour on two cores for
merge, and ten minutes for format. What is missed is listed, and kept in .cache/mutants/WHAT/mutants.out; docs/mutants.md
explains each that is left.

    scripts/mutants.sh merge --file src/merge/vocab/axis.rs # one file
    scripts/mutants.sh merge --shard 0/10                  # a tenth
TEXT
}
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

what=all
case ${1:-} in
-h | --help)
    usage
    exit
    ;;
merge | format | all)
    what=$1
    shift
    ;;
esac
need_compilers
version=27.1.0
tool=$PWD/.cache/mutants/bin/cargo-mutants
[[ -x $tool ]] || step "cargo-mutants" cargo install --locked --quiet --version "$version" --root .cache/mutants cargo-mutants

# mutants NAME TESTS OPTIONS...: every mutant that a test of TESTS fails on is caught.
mutants() {
    local name=$1 tests=$2 code=0
    shift 2
    mkdir -p ".cache/mutants/$name"
    # Without debug information each build takes half the time.
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0 "$tool" mutants --no-default-features --jobs "$(nproc)" --output ".cache/mutants/$name" \
        --exclude '**/fuzzing.rs' --exclude '**/headers.rs' --exclude '**/*tests.rs' --exclude '**/tests/**' \
        --exclude-re 'impl (Debug|Display|fmt::Display|fmt::Debug)' --no-shuffle "$@" -- --lib -- "$tests" --skip fuzzing:: || code=$?
    # 2: some were missed; 3: some ran for ever, which a test would notice too.
    ((code == 0 || code == 2 || code == 3)) || die "cargo-mutants ended with $code"
}

if [[ $what != format ]]; then step "mutants of src/merge" mutants merge merge:: --file 'src/merge/**' "$@"; fi
if [[ $what != merge ]]; then
    step "every twelfth mutant of src/format" mutants format format:: --file 'src/format/**' --shard 0/12 --sharding round-robin "$@"
fi

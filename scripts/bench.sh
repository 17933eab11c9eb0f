#!/usr/bin/env bash
# Measures the merge and writes bench/results.md and .json: installs the peers, builds the tool, runs bench.py.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<'TEXT'
usage: scripts/bench.sh [OPTIONS OF bench.py]

Makes .venv-bench (mergekit 0.1.4 with torch: 3 GB to fetch, 6 GB unpacked; with --no-peers only numpy), builds the
tool if it isn't built, makes the parents, and measures. `scripts/bench.sh --quick` shows in minutes that all works.
The options of bench.py:

TEXT
    python3 scripts/bench.py --help
}

venv=.venv-bench
installed=$venv/installed.txt
root=$PWD

peers=true binary=false
for argument in "$@"; do
    case $argument in
    -h | --help)
        usage
        exit
        ;;
    --no-peers) peers=false ;;
    --binary | --binary=*) binary=true ;;
    esac
done

# set_up: what is missing in the environment; without peers, the generator's numpy is all.
set_up() {
    local wanted
    wanted=$(grep -v '^#' scripts/bench-requirements.txt)
    $peers || wanted=$(grep '^numpy==' <<<"$wanted")
    if [[ -f $installed ]] && ! grep -Fxvqf "$installed" <<<"$wanted"; then return; fi
    [[ -x $venv/bin/python3 ]] || python3 -m venv "$venv" ||
        die "no virtual environment can be made: install it (Debian, Ubuntu: apt-get install python3-venv)"
    say "installing into $venv"
    "$venv/bin/python3" -m pip install --quiet --disable-pip-version-check --requirement /dev/stdin <<<"$wanted" ||
        die "pip could not install scripts/bench-requirements.txt into $venv"
    printf '%s\n' "$wanted" >"$installed"
}

set_up
if ! $binary; then
    need_compilers
    step "libtorch" scripts/libtorch.sh
    # Does nothing where the binary is up to date; a binary of other sources would make the tables lie.
    step "build" cargo build --locked --release
fi
export PYTHONDONTWRITEBYTECODE=1
# Paths among the options are the user's.
cd "$called_from"
exec "$root/$venv/bin/python3" "$root/scripts/bench.py" "$@"

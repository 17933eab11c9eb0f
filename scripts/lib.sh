# shellcheck shell=bash
# Sourced by the other scripts: words for the user, and what a build needs.

# Where the user is; the scripts run from the repository's root.
# shellcheck disable=SC2034 # for the scripts
called_from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

say() { printf '%s\n' "$*" >&2; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# step NAME COMMAND...: runs the command under a heading and says how long it took.
step() {
    local name=$1 started=$SECONDS
    shift
    say "== $name"
    "$@"
    say "== $name: $((SECONDS - started)) s"
}

# A Rust and a C++ compiler. rustup's place counts, though a shell opened before it was installed doesn't know it.
need_compilers() {
    command -v cargo >/dev/null || PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
    command -v cargo >/dev/null || die "cargo is missing: install Rust 1.89 or newer with rustup (https://rustup.rs)"
    command -v "${CXX:-c++}" >/dev/null ||
        die "a C++ compiler (\`${CXX:-c++}\`) is missing: install one (Debian, Ubuntu: apt-get install g++)"
}

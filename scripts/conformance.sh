#!/bin/sh
# Make .venv-conformance if it is missing, build the binary if it is not of these sources, run conformance.py.
#   scripts/conformance.sh [--binary PATH] [--only WORD ...] [--long] [--real]
set -eu
cd "$(dirname "$0")/.."

venv=.venv-conformance
requirements=scripts/conformance-requirements.txt
# The stamp holds the requirements that were installed: another list, another installation.
if ! cmp -s "$requirements" "$venv/installed.txt"; then
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$venv/installed.txt"
fi

case " $* " in
*" --binary "* | *" --binary="* | *" --list "*) ;;
*) cargo build --locked --release ;;
esac

exec "$venv/bin/python" scripts/conformance.py "$@"

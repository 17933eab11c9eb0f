#!/usr/bin/env bash
# bash, for dash drops variables with a hyphen in the name, and with them CARGO_BIN_EXE_llm-slerp-merge.
# Stands before rustc (.cargo/config.toml) for one sentence: without libtorch, torch-sys's build script fails with
# a page of compiler output, and nothing else in cargo's order of work is sure to come before it.
# shellcheck disable=SC2016 # a dollar sign and backquotes are meant
sentence=
if [ "${CARGO_PKG_NAME:-}" != torch-sys ]; then
    :
elif [ ! -e "${LIBTORCH:-}/lib/libtorch_cpu.so" ]; then
    sentence='libtorch is missing: run `scripts/libtorch.sh`, which puts it into `libtorch/`'
elif [ ! -d "${LIBTORCH_INCLUDE:-$LIBTORCH}/include/torch/csrc" ]; then
    sentence='libtorch has no headers: run `scripts/libtorch.sh`, which puts a whole one into `libtorch/`'
fi
if [ -n "$sentence" ]; then
    # In rustc's own format, which cargo shows without the command that it ran.
    printf '{"$message_type":"diagnostic","message":"%s","code":null,"level":"error","spans":[],"children":[],' "$sentence" >&2
    printf '"rendered":"error: %s\\n\\n"}\n' "$sentence" >&2
    exit 1
fi
exec "$@"

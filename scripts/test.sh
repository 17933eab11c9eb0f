#!/usr/bin/env bash
# Sets up as far as is needed and runs every test.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# What a shell starts behind an & ignores SIGINT, and SIGHUP behind nohup; the tests send both.
heeding=()
if env --default-signal=HUP,INT,TERM true 2>/dev/null; then heeding=(env --default-signal=HUP,INT,TERM); fi

need_compilers
step "libtorch" scripts/libtorch.sh
step "tests" "${heeding[@]}" cargo test --locked
step "tests of the floors that know no torch" cargo test --locked --no-default-features --lib

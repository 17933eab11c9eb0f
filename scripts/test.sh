#!/usr/bin/env bash
# Sets up as far as is needed and runs every test.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_compilers
step "libtorch" scripts/libtorch.sh
step "tests" cargo test --locked
step "tests of the floors that know no torch" cargo test --locked --no-default-features --lib

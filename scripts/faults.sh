#!/usr/bin/env bash
# Breaks merges on purpose and looks at what is left: stopped and killed, on full and failing disks, by power cuts.
#   scripts/faults.sh [stop|full|power|kill|all]
# Needs root (mounts, loop devices) and strace, which is installed where apt-get is. Takes about half an hour.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

which=${1:-all}
case $which in
stop | full | power | kill | all) ;;
*) die "usage: scripts/faults.sh [stop|full|power|kill|all]" ;;
esac
[[ $EUID -eq 0 ]] || die "root is needed, to mount small file systems: sudo scripts/faults.sh $which"
if ! command -v strace >/dev/null; then
    apt-get update -qq && apt-get install -y -qq strace
fi
for command in python3 mkfs.ext4 losetup; do
    command -v "$command" >/dev/null || die "$command is missing"
done

need_compilers
scripts/libtorch.sh
cargo build --locked --release
exec python3 -u scripts/faults/main.py --tool "${CARGO_TARGET_DIR:-target}/release/llm-slerp-merge" "$which"

#!/usr/bin/env bash
# Runs merge_array.sbatch under a real Slurm: a controller and one node on this machine, everything in a
# directory under /tmp. Debian or Ubuntu, as root; installs slurm-wlm and munge where they are missing.
#
#     scripts/slurm/test.sh            # builds the tool first
#     TOOL=target/release/llm-slerp-merge scripts/slurm/test.sh
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

[[ $(id -u) == 0 ]] || die "this test sets up Slurm's daemons, which needs root"
if ! command -v slurmctld slurmd munged >/dev/null; then
    command -v apt-get >/dev/null || die "slurmctld, slurmd and munged are missing: install Slurm and munge"
    say "== install slurm-wlm, munge"
    apt-get -qq update
    # The packages' own services stay off: the test starts its own daemons.
    printf '#!/bin/sh\nexit 101\n' >/tmp/policy-rc.d.$$
    if [[ ! -e /usr/sbin/policy-rc.d ]]; then
        install -m 755 /tmp/policy-rc.d.$$ /usr/sbin/policy-rc.d
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends slurm-wlm munge >/dev/null
    rm -f /tmp/policy-rc.d.$$ /usr/sbin/policy-rc.d
fi
if [[ -z ${TOOL:-} ]]; then
    step "build" cargo build --locked
    TOOL=${CARGO_TARGET_DIR:-target}/debug/llm-slerp-merge
fi
tool=$(realpath "$TOOL")
started=$SECONDS

dir=$(mktemp -d /tmp/slurm-test.XXXXXX)
chmod 755 "$dir"
daemons=()
finish() {
    local code=$?
    if ((code != 0)); then
        for log in "$dir"/*.log "$dir"/work/*.log; do
            [[ -s $log ]] && { say "-- ${log#"$dir"/}"; tail -n 15 "$log" >&2; }
        done
    fi
    for ((i = ${#daemons[@]} - 1; i >= 0; i--)); do
        kill "${daemons[i]}" 2>/dev/null || true
        wait "${daemons[i]}" 2>/dev/null || true
    done
    rm -rf "$dir"
    return "$code"
}
trap finish EXIT

# wait_for SECONDS WORDS COMMAND...: until the command succeeds.
wait_for() {
    local seconds=$1 words=$2 until
    until=$((SECONDS + seconds))
    shift 2
    while ! "$@"; do
        ((SECONDS < until)) || die "$words: not after $seconds s"
        sleep 0.2
    done
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'; }

## Slurm: munge, one controller, one node
step_started=$SECONDS
say "== start slurmctld and slurmd"
host=$(hostname -s)
mkdir "$dir"/{state,spool,work}
dd if=/dev/urandom of="$dir/munge.key" bs=128 count=1 status=none
chmod 400 "$dir/munge.key"
cat >"$dir/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=100000
JobCompType=jobcomp/filetxt
JobCompLoc=$dir/jobcomp.txt
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=5
MinJobAge=300
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=1000 State=UNKNOWN
PartitionName=test Nodes=$host Default=YES State=UP MaxTime=INFINITE
CONF
export SLURM_CONF=$dir/slurm.conf

munged --foreground --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" \
    --pid-file="$dir/munged.pid" --log-file="$dir/munged.log" --seed-file="$dir/munged.seed" 2>/dev/null &
daemons+=($!)
wait_for 10 "munged" test -S "$dir/munge.socket"
slurmctld -D -f "$SLURM_CONF" -L "$dir/slurmctld.log" 2>/dev/null &
daemons+=($!)
slurmd -D -f "$SLURM_CONF" -L "$dir/slurmd.log" -N "$host" 2>/dev/null &
daemons+=($!)
node_is_idle() { [[ $(sinfo -h -o %t 2>/dev/null) == idle ]]; }
wait_for 60 "the node" node_is_idle
say "== start slurmctld and slurmd: $((SECONDS - step_started)) s"

## A manifest of eight merges over the fixtures; the last one is large enough to be killed on its way
python3 - "$PWD" "$dir/work" <<'PYTHON'
import json, random, sys
from pathlib import Path

repository, work = map(Path, sys.argv[1:])
sys.path.insert(0, str(repository / "scripts"))
from fixtures.torch_zip import Record, Tensor, write_shard

ELEMENTS = 32 << 20
for side in "ab":
    block = random.Random(side).randbytes(1 << 20)
    # Every second byte, the high one of each float16, keeps the numbers below 2 in magnitude.
    block = bytes(byte & 0xBB if place % 2 else byte for place, byte in enumerate(block))
    chunks = [block] * (2 * ELEMENTS // len(block))
    tensors = [Tensor(f"w{i}", "float16", (ELEMENTS,), lambda: Record(chunks)) for i in range(4)]
    write_shard(work / f"{side}.bin", tensors)

data = repository / "tests/data"
merges = []
for number in range(7):
    family = ["llama", "gpt2", "neox"][number % 3]
    merges.append({
        "name": f"{family}-{number}",
        "primary": str(data / family / "primary"),
        "secondary": str(data / family / "secondary"),
        "t": round(0.1 + number / 10, 1),
    })
merges.append({"name": "large", "primary": "a.bin", "secondary": "b.bin", "threads": 1})
manifest = {"defaults": {"output": "children/{name}"}, "merges": merges}
(work / "merges.json").write_text(json.dumps(manifest, indent=2))
PYTHON

## The array
step_started=$SECONDS
say "== the array of 8"
n=$("$tool" batch "$dir/work/merges.json" --count)
[[ $n == 8 ]] || die "expected 8 merges, found $n"
script=$PWD/scripts/slurm/merge_array.sbatch
cd "$dir/work"
# submit ARRAY: as merge_array.sbatch says, with less than its share of a small machine.
submit() {
    sbatch --parsable --export=ALL,LLM_SLERP_MERGE="$tool" --cpus-per-task=1 --mem=0 \
        --array="$1" "$script" merges.json --record record.jsonl
}
# state TASK: Slurm's word for it.
state() { scontrol show job "$1" 2>/dev/null | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p' | head -1; }
no_task_is_left() { [[ -z $(squeue -h -o %i 2>/dev/null) ]]; }
is() { [[ $(state "$1") == "$2" ]]; }

job=$(submit "0-$((n - 1))")
wait_for 240 "the array" no_task_is_left
for ((task = 0; task < n; task++)); do
    is "${job}_$task" COMPLETED || die "task $task is $(state "${job}_$task"), not COMPLETED"
done
[[ $(grep -c 'JobState=COMPLETED' "$dir/jobcomp.txt") == "$n" ]] || die "jobcomp does not list $n completed tasks"
say "== the array of 8: $((SECONDS - step_started)) s, all COMPLETED"

# children DIRECTORY: the sha256 of every file of every child.
children() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum); }
children children >array.sha256

## The same merges one by one, by `merge`
python3 - <<'PYTHON' >commands
import json
for job in json.load(open("merges.json"))["merges"]:
    print(job["primary"], job["secondary"], "-o", f"plain/{job['name']}", "-t", job.get("t", 0.5), "--threads 1")
PYTHON
mkdir plain
while read -r -a arguments; do
    "$tool" merge "${arguments[@]}" --quiet --no-progress
done <commands
children plain >plain.sha256
diff array.sha256 plain.sha256 >&2 || die "the array's children are not those of plain merges"
say "== $(wc -l <plain.sha256) files of 8 children: sha256 as of plain merges"

## A task that is killed on its way, then requeued
step_started=$SECONDS
say "== a killed task"
rm -rf children
job=$(submit 7)
# The weight file has its length from the start; what counts is how much of it is on its way.
half_made() {
    local mb
    mb=$(du -sm children/.large.partial 2>/dev/null | cut -f 1) && ((${mb:-0} > 64))
}
wait_for 60 "the large merge" half_made
killed=0
for pid in $(pgrep -f "batch merges.json --index auto"); do
    [[ $(readlink "/proc/$pid/cwd") == "$PWD" ]] && kill -KILL "$pid" && killed=$((killed + 1))
done
((killed == 1)) || die "expected one process to kill, found $killed"
is_over() { [[ $(state "${job}_7") != RUNNING && $(state "${job}_7") != COMPLETING ]]; }
wait_for 60 "the killed task" is_over
is "${job}_7" FAILED || die "the killed task is $(state "${job}_7"), not FAILED"
[[ ! -e children/large ]] || die "the killed task's child is there"
[[ -d children/.large.partial ]] || die "the killed task left nothing to go on from"
before=$(stat -c %i children/.large.partial/pytorch_model.bin)
# A credential of the second in which the task was killed counts as revoked: the next one must be younger.
sleep 2
scontrol requeue "${job}_7"
sleep 2
# Slurm holds requeued jobs back for two minutes.
scontrol update "jobid=${job}_7" starttime=now
is_done() { [[ $(state "${job}_7") == COMPLETED ]]; }
wait_for 240 "the requeued task" is_done
restarts=$(scontrol show job "${job}_7" | sed -n 's/.*Restarts=\([0-9]*\).*/\1/p')
[[ $restarts == 1 ]] || die "expected one restart, found $restarts"
[[ $(stat -c %i children/large/pytorch_model.bin) == "$before" ]] || die "the requeued task did not take up what was left"
(cd children/large && sha256sum -- *.bin slerp_merge.json) >again.sha256
(cd plain/large && sha256sum -- *.bin slerp_merge.json) | diff again.sha256 - >&2 || die "the requeued child differs"
say "== a killed task: FAILED, requeued, COMPLETED, sha256 as of a plain merge: $((SECONDS - step_started)) s"
cd - >/dev/null
say "== all passed: $((SECONDS - started)) s"

"""The tables: Markdown for people, JSON with every run for programs."""
import json
from dataclasses import asdict

from benchmark import cases, targets

MIB, GB = 2**20, 1e9
# (above, below): ratios of wall time that are printed wherever both were run.
RATIOS = [
    (cases.OURS, cases.FLOOR_SYNC), (cases.OURS_NO_FSYNC, cases.FLOOR),
    (cases.SWEEP_OURS, cases.SWEEP_FLOOR_SYNC), (cases.SWEEP_OURS_NO_FSYNC, cases.SWEEP_FLOOR),
    (cases.MERGEKIT, cases.OURS), (cases.MERGEKIT, cases.OURS_NO_FSYNC),
    (cases.ORIGINAL, cases.OURS), (cases.ORIGINAL, cases.OURS_NO_FSYNC),
]
COLUMNS = ("case", "rounds", "wall, s", "of which", "then sync, s", "user+sys, s", "peak RSS, MiB", "read, GB",
           "child, GB")
EXPLANATION = f"""\
## How it was measured

- The cases of a table ran interleaved, in another order each round. Before each run all dirty pages were written back;
  after it the output was deleted and the disk left to come to rest. **warm**: both parents were read just before each
  run. **cold**: their pages were dropped with `posix_fadvise`.
- `floor` is `cat A/* B/* >/dev/null; cp -r A C`; `floor+sync` adds `sync C/*`, which brings the copy's data to disk as
  `ours` does with its child (it syncs directories too). `ours --no-fsync`, mergekit and the original-style merge leave
  that to the system. `sweep` is five t ({", ".join(cases.SWEEP)}) in one call of ours, against one `cat` and five
  `cp -r` (and one `sync` of all).
- *then sync*: seconds that bringing the output to disk took **after** the run, outside its wall time; *of which*: wall
  time of the parts of the floor.
- mergekit runs as `mergekit-yaml RECIPE OUT {" ".join(cases.MERGEKIT_FLAGS)}`; the recipe is slerp
  with two models, `base_model` A, t 0.5, `dtype` of the pair. The parents have no tokenizer. It takes parents of
  different vocabularies and cuts the child to the shorter one.
- `original-style` is scripts/bench_original.py.
- Peak RSS and CPU time are `wait4`'s, of the largest process and of all processes of a case. A peak is never reported
  below the driver's own. *read* is what came from the disk. GB are 10^9 bytes, MiB 2^20.
"""


def _number(value):
    """Three significant places or so."""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _spread(spread, unit=1.0):
    return f"{_number(spread.median / unit)} ({_number(spread.min / unit)}-{_number(spread.max / unit)})"


def _whole(spread, unit):
    return f"{spread.median / unit:.0f} ({spread.min / unit:.0f}-{spread.max / unit:.0f})"


def _stages(samples):
    """The parts of the run of median wall time, for a case that has several."""
    if len(samples[0].stages_s) < 2:
        return ""
    middle = sorted(samples, key=lambda sample: sample.wall_s)[len(samples) // 2]
    return ", ".join(f"{label} {_number(seconds)}" for label, seconds in middle.stages_s.items())


def table(group):
    """The cases of one group."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|--:|--:|---|--:|--:|--:|--:|--:|"]
    for name, samples in group.samples.items():
        cells = [
            name, str(len(samples)), _spread(group.spread(name, "wall_s")), _stages(samples),
            _number(group.spread(name, "sync_after_s").median), _spread(group.spread(name, "cpu_s")),
            _whole(group.spread(name, "peak_rss_bytes"), MIB),
            f"{group.spread(name, 'read_bytes').median / GB:.2f}",
            f"{group.spread(name, 'child_bytes').median / GB:.3f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratios(group):
    """Wall time over wall time, of medians, of minima, and round by round."""
    lines = []
    for over, under in RATIOS:
        median = group.ratio(over, under)
        if median is None:
            continue
        least, paired = group.ratio(over, under, "min"), group.paired_ratio(over, under)
        by_round = f", {paired:.3f} median of the rounds' own" if paired else ""
        lines.append(f"- {over} / {under}: **{median:.3f}** of medians, {least:.3f} of minima{by_round}")
    return "\n".join(lines)


def section(group):
    """One group under its heading."""
    parts = [f"### {group.name}"]
    if group.samples:
        parts.append(table(group))
    parts += [text for text in (ratios(group), "\n".join(f"- {note}" for note in group.notes)) if text]
    return "\n\n".join(parts)


def _promises(groups):
    lines = ["| promised | measured | |", "|---|---|---|"]
    lines += [f"| {target.promise} | {target.found} | {target.verdict} |" for target in targets.evaluate(groups)]
    return "\n".join(lines)


def _machine(machine):
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    limits = ", ".join(f"{name} {value}" for name, value in machine["dirty_limits"].items())
    loads = f"{machine['load_before'][0]} before, {machine.get('load_after', ['?'])[0]} after"
    return "\n".join([
        f"- {machine['date']}; {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB",
        f"- {machine['kernel']}, {machine['file_system']}, {limits}; load {loads}",
        f"- {machine['tool']} of {machine['commit']} (SHA-256 {machine['binary_sha256']}),"
        f" libtorch {machine['libtorch']}, {machine['rustc']}",
        f"- {machine['coreutils']}; Python {machine['python']}; {packages}",
        f"- the driver's own memory: {machine.get('driver_rss_mib', '?')} MiB",
    ])


def markdown(groups, machine, rounds):
    """The whole report."""
    parts = ["# Benchmark"]
    if rounds < targets.ROUNDS:
        parts.append(f"**{rounds} rounds: a trial, not a result, which takes {targets.ROUNDS} or more.**")
    parts += ["Written by scripts/bench.sh. Figures are median (minimum-maximum).", _machine(machine),
              "## Promises", _promises(groups), "## Figures", *map(section, groups), EXPLANATION]
    return "\n\n".join(parts)


def write(directory, name, groups, machine, rounds):
    """DIRECTORY/NAME.md and DIRECTORY/NAME.json."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.md").write_text(markdown(groups, machine, rounds))
    content = {"machine": machine, "rounds": rounds,
               "promises": [asdict(target) for target in targets.evaluate(groups)],
               "groups": [group.as_json() for group in groups]}
    (directory / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")

#!/usr/bin/env python3
"""Measure our merge against the cost of the bytes alone (cat and cp), mergekit and a plain Python merge.

Run by bench.sh, which makes the environment and the binary. Writes bench/NAME.md and bench/NAME.json.

    bench.py                                 everything: 90 GB of disk (45 with --drop-data), hours
    bench.py --quick                         0.1B, two rounds: does it all work
    bench.py --shapes 1.1b --no-peers        the figures against the floor, some minutes
    bench.py --shapes 1.1b,7b --cold --drop-data --no-peers
"""
import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from benchmark import cases, machine, pairs, report
from benchmark.measure import RunFailed, measure
from benchmark.results import Group

CHILDREN_IN_SWEEP = len(cases.SWEEP)


def _words(allowed):
    """A type for argparse: comma-separated words of `allowed`."""
    def parse(text):
        words = [word.strip().lower() for word in text.split(",") if word.strip()]
        unknown = [word for word in words if word not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(allowed)}")
        return words
    return parse


def _at_least_one(text):
    if int(text) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return int(text)


def arguments():
    """The command line, with --quick's values where none were given."""
    shapes = _words(pairs.PARENT_BYTES)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--shapes", type=shapes, help="0.1b,1.1b,7b (default: all)")
    add("--dtypes", type=_words(pairs.DTYPES), help="float16,bfloat16 (default: both; 7b: float16)")
    add("--vocabularies", type=_words(pairs.VOCABULARIES), help="different,equal (default: both; 7b: different)")
    add("--rounds", type=_at_least_one, help="of every case but the peers (default 7)")
    add("--peers", action=argparse.BooleanOptionalAction, default=True, help="mergekit and the original-style merge")
    add("--peer-rounds", type=_at_least_one, help="of the peers, spread among the others (default 3)")
    add("--peer-shapes", type=shapes, help="where the peers run (default 0.1b,1.1b)")
    add("--sweep-shapes", type=shapes, help="where five t are merged at once, on the first pair (default 1.1b)")
    add("--cold", action="store_true", help="also with the parents out of the page cache")
    add("--only", metavar="NAME", help="only cases whose `PAIR, KIND, CACHE; CASE` has one of these words")
    add("--quick", action="store_true", help="0.1b, float16, two rounds")
    add("--data", type=Path, default=machine.REPOSITORY / "bench/data", help="for pairs and children")
    add("--drop-data", action="store_true", help="delete each pair that this run made once it is measured")
    add("--binary", type=Path, help="a tool built elsewhere, to be measured instead of this repository's")
    add("--out", type=Path, default=machine.REPOSITORY / "bench", help="where the tables go")
    add("--name", help="of the tables (default results, or quick)")
    return _with_defaults(parser.parse_args())


def _with_defaults(given):
    quick = given.quick
    given.all_vocabularies, given.all_dtypes = given.vocabularies is not None, given.dtypes is not None
    defaults = {
        "shapes": ["0.1b"] if quick else list(pairs.PARENT_BYTES),
        "dtypes": ["float16"] if quick else list(pairs.DTYPES),
        "vocabularies": ["different"] if quick else list(pairs.VOCABULARIES),
        "rounds": 2 if quick else 7,
        "peer_rounds": 1 if quick else 3,
        "peer_shapes": ["0.1b", "1.1b"],
        "sweep_shapes": ["0.1b" if quick else "1.1b"],
        "name": "quick" if quick else "results",
    }
    for name, value in defaults.items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    given.built_here = given.binary is None
    given.data, given.binary = given.data.absolute(), (given.binary or _built()).absolute()
    return given


def _built():
    """Where cargo puts the release binary."""
    return machine.REPOSITORY / os.environ.get("CARGO_TARGET_DIR", "target") / "release/llm-slerp-merge"


def say(text):
    """To the user, who waits."""
    print(text, file=sys.stderr, flush=True)


def is_due(number, rounds, wanted):
    """Whether a case with `wanted` runs has one in this round: they are spread evenly."""
    return number * wanted % rounds < wanted


class Bench:
    """One sitting: runs groups of cases and keeps the tables up to date."""

    def __init__(self, given, scratch):
        self.given, self.scratch, self.groups, self.ours_failed = given, scratch, [], False
        self.machine = machine.describe(given.binary, given.built_here, given.data)
        self.environment = machine.offline_environment()

    def wanted(self, group, case):
        """Whether --only lets this case run."""
        words = (self.given.only or "").split(",")
        return any(word.strip() in f"{group.name}; {case.name}" for word in words)

    def run(self, group, chosen):
        """Interleave the cases, and write the tables."""
        left = [case for case in chosen if self.wanted(group, case)]
        if not left and not group.notes:
            return
        self.groups.append(group)
        for number in range(self.given.rounds):
            due = [case for case in left if is_due(number, self.given.rounds, min(case.rounds, self.given.rounds))]
            random.Random(number).shuffle(due)
            for case in due:
                if not self._once(group, case, number):
                    left.remove(case)
        order = [case.name for case in chosen]
        group.samples = {name: group.samples[name] for name in order if name in group.samples}
        self.write()

    def _once(self, group, case, number):
        """One run; False where it failed."""
        try:
            sample = measure(case, self.scratch / "out", group.cache == "cold", self.environment)
        except RunFailed as failure:
            say(f"{group.name}: {case.name}: {failure}")
            group.notes.append(f"{case.name} failed in round {number + 1}: {self._without_paths(failure)}")
            self.ours_failed |= case.name not in cases.PEERS
            return False
        group.add(case.name, sample)
        peak = f"{sample.peak_rss_bytes / 2**20:.0f} MiB"
        say(f"{group.name}, round {number + 1}: {case.name}: {sample.wall_s:.3f} s, {peak}")
        return True

    def _without_paths(self, failure):
        """The message without this machine's directories, for it goes into the tables."""
        text = str(failure)
        for path, word in [(self.scratch, "SCRATCH"), (self.given.data, "DATA"), (machine.REPOSITORY, "REPOSITORY")]:
            text = text.replace(str(path), word)
        return text

    def write(self):
        """The tables of what has run so far."""
        machine.finish(self.machine)
        report.write(self.given.out, self.given.name, self.groups, self.machine, self.given.rounds)

    def caches(self, pair):
        """The states of the page cache to measure a pair in, and a note where it isn't the user's choice."""
        if 3 * pair.parent_bytes > 0.8 * machine.memory_bytes("MemTotal"):
            return ["cold"], ["the pair and its child exceed the memory: there is no warm case"]
        return (["warm", "cold"] if self.given.cold else ["warm"]), []

    def peers(self, pair, place, group):
        """The peers that can run on this pair here; why not, goes into the notes."""
        if not self.given.peers or pair.shape not in self.given.peer_shapes or group.cache == "cold":
            return []
        chosen = []
        for case in cases.peer_cases(place, pair, self.given.peer_rounds):
            needed = cases.memory_needed(case.name, pair)
            if needed > machine.memory_bytes("MemAvailable"):
                group.notes.append(f"{case.name} wasn't run: it needs about {needed / 1e9:.0f} GB of memory")
            else:
                chosen.append(case)
        return chosen

    def pair(self, pair, sweep):
        """Every group of one pair."""
        missing = pairs.room_for(self.given.data, pair, CHILDREN_IN_SWEEP if sweep else 1)
        if missing:
            note = f"{missing / 1e9:.0f} GB more of disk are needed"
            say(f"{pair.name}: skipped, {note}")
            self.groups.append(Group(pair.name, "merge", "skipped", notes=[note]))
            return
        was_there = (self.given.data / pair.name).exists()
        directory = pairs.ensure(self.given.data, pair)
        place = cases.Place(str(self.given.binary), directory / "a", directory / "b", self.scratch)
        states, notes = self.caches(pair)
        for cache in states:
            group = Group(pair.name, "merge", cache, notes=list(notes))
            self.run(group, cases.merge_cases(place, self.given.rounds) + self.peers(pair, place, group))
            if sweep:
                self.run(Group(pair.name, "sweep", cache), cases.sweep_cases(place, self.given.rounds))
        if self.given.drop_data and not was_there:
            shutil.rmtree(directory)

    def startup(self):
        """The commands that should just be quick."""
        sparse, small = pairs.ensure_sparse(self.given.data), pairs.ensure_small(self.given.data)
        binary = str(self.given.binary)
        program = (binary, *machine.libraries_of(binary))
        chosen = cases.startup_cases(program, sparse, small, self.scratch / "out", self.given.rounds)
        for cache in ["warm", "cold"] if self.given.cold else ["warm"]:
            self.run(Group("startup", "quick", cache), chosen)


def chosen_pairs(given):
    """The pairs to measure; at 7B equal vocabularies and bfloat16 only where they were asked for."""
    different = pairs.VOCABULARIES["different"]
    return [pair for pair in pairs.all_pairs(given.shapes, given.dtypes, given.vocabularies)
            if pair.shape != "7b" or ((given.all_vocabularies or pair.vocabularies == different)
                                      and (given.all_dtypes or pair.dtype == pairs.DTYPES[0]))]


def prime(given):
    """Run each program once, so that no first round pays for its files."""
    commands = [(str(given.binary), "--version")]
    if given.peers:
        commands.append((sys.executable, "-c", "import numpy, torch"))
        commands.append((Path(sys.executable).parent / "mergekit-yaml", "--help"))
    for command in commands:
        machine.run_quietly(command)


def main():
    """Measure, and leave the tables in --out."""
    given = arguments()
    # So that the scratch directory goes away then too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    given.data.mkdir(parents=True, exist_ok=True)
    prime(given)
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=given.data) as scratch:
        bench = Bench(given, Path(scratch))
        bench.startup()
        swept = set()
        for pair in chosen_pairs(given):
            bench.pair(pair, pair.shape in given.sweep_shapes and pair.shape not in swept)
            swept.add(pair.shape)
        bench.write()
    print((given.out / f"{given.name}.md").read_text())
    return 1 if bench.ours_failed else 0


if __name__ == "__main__":
    sys.exit(main())

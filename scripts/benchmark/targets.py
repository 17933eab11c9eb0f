"""The figures that the tool promises, each held against what was measured."""
from dataclasses import dataclass

from benchmark import cases
from benchmark.pairs import VOCABULARIES, Pair
from benchmark.results import find

ROUNDS = 7
MIB = 2**20
MAIN = Pair("1.1b", "float16", VOCABULARIES["different"])
OURS = (cases.OURS, cases.OURS_NO_FSYNC)


@dataclass(frozen=True)
class Target:
    """A promise, what was found, and whether it held (None: not measured)."""

    promise: str
    found: str
    met: bool | None

    @property
    def verdict(self):
        """In words."""
        return {True: "met", False: "NOT met", None: "not measured"}[self.met]


def _unmeasured(promise, why="-"):
    return Target(promise, why, None)


def _ratio(promise, group, over, under, holds):
    """A ratio of medians, with that of the minima beside it."""
    median, least = group.ratio(over, under), group.ratio(over, under, "min")
    if median is None:
        return _unmeasured(promise)
    return Target(promise, f"{median:.2f} (minima {least:.2f})", holds(median))


def _against_floor(groups):
    group = find(groups, MAIN.name, "merge", "warm")
    sweep = find(groups, MAIN.name, "sweep", "warm")
    for label, here, ours, floor in [
        ("1.1B wall, synced", group, cases.OURS, cases.FLOOR_SYNC),
        ("1.1B wall, not synced", group, cases.OURS_NO_FSYNC, cases.FLOOR),
        ("sweep of five t, synced", sweep, cases.SWEEP_OURS, cases.SWEEP_FLOOR_SYNC),
        ("sweep of five t, not synced", sweep, cases.SWEEP_OURS_NO_FSYNC, cases.SWEEP_FLOOR),
    ]:
        yield _ratio(f"{label}: at most 1.10 x floor", here, ours, floor, lambda ratio: ratio <= 1.10)


def _against_peers(groups):
    group = find(groups, MAIN.name, "merge", "warm")
    for peer, least in [(cases.MERGEKIT, 25), (cases.ORIGINAL, 45)]:
        for ours in OURS:
            yield _ratio(f"1.1B: {peer} takes at least {least} x `{ours}`", group, peer, ours,
                         lambda ratio, least=least: ratio >= least)


def _peaks(groups):
    """Peak RSS of ours by shape, in MiB, from whichever state of the cache was measured."""
    peaks = {}
    for shape in ("0.1b", "1.1b", "7b"):
        pair = Pair(shape, MAIN.dtype, MAIN.vocabularies)
        for cache in ("cold", "warm"):
            spread = find(groups, pair.name, "merge", cache).spread(cases.OURS, "peak_rss_bytes")
            if spread:
                peaks[shape] = (spread.median / MIB, spread.max / MIB)
    return peaks


def _memory(groups):
    peaks = _peaks(groups)
    found = ", ".join(f"{shape} {median:.0f} (max {most:.0f})" for shape, (median, most) in peaks.items())
    at_most, alike = "peak RSS at most 300 MiB at 0.1B, 1.1B and 7B", "peak RSS of the three within 10 %"
    if not peaks:
        return [_unmeasured(at_most), _unmeasured(alike)]
    low = all(most <= 300 for _, most in peaks.values())
    medians = [median for median, _ in peaks.values()]
    apart = max(medians) / min(medians) - 1
    complete = len(peaks) == 3
    return [Target(at_most, found, low if complete or not low else None),
            Target(alike, f"{apart:.1%} apart", (apart <= 0.10) if complete or apart > 0.10 else None)]


def _seconds_per_gb(group, case_name):
    wall, size = group.spread(case_name, "wall_s"), group.spread(case_name, "child_bytes")
    return wall.median / (size.median / 1e9) if wall else None


def _scaling(groups, case_name):
    """1.1B against 7B in the same state of the cache, the warm one where both have it."""
    promise = f"`{case_name}`: seconds per GB from 1.1B to 7B within 15 %"
    large = Pair("7b", MAIN.dtype, MAIN.vocabularies)
    for cache in ("warm", "cold"):
        first = _seconds_per_gb(find(groups, MAIN.name, "merge", cache), case_name)
        second = _seconds_per_gb(find(groups, large.name, "merge", cache), case_name)
        if first and second:
            found = f"{first:.2f} to {second:.2f} s/GB of child, {cache}: {second / first - 1:+.1%}"
            return Target(promise, found, abs(second / first - 1) <= 0.15)
    return _unmeasured(promise, "needs both in one state of the cache: --cold where 7B exceeds the memory")


def _bfloat16(groups, case_name):
    promise = f"`{case_name}`: bf16 as fast as fp16 within 10 %"
    other = Pair(MAIN.shape, "bfloat16", MAIN.vocabularies)
    half = find(groups, MAIN.name, "merge", "warm").spread(case_name, "wall_s")
    brain = find(groups, other.name, "merge", "warm").spread(case_name, "wall_s")
    if not half or not brain:
        return _unmeasured(promise)
    apart = brain.median / half.median - 1
    return Target(promise, f"{half.median:.2f} s and {brain.median:.2f} s: {apart:+.1%}", abs(apart) <= 0.10)


def _quick(groups):
    group = find(groups, "startup", "quick", "warm")
    for case_name, limit in [(cases.PLAN, 0.5), (cases.VERSION, 0.3), (cases.SMALL_MERGE, 0.6)]:
        spread = group.spread(case_name, "wall_s")
        promise = f"`{case_name}` in less than {limit} s"
        yield (Target(promise, f"{spread.median:.3f} s (max {spread.max:.3f})", spread.median < limit)
               if spread else _unmeasured(promise))
    spread = group.spread(cases.PLAN, "peak_rss_bytes")
    promise = f"`{cases.PLAN}` in less than 200 MiB"
    yield (Target(promise, f"{spread.max / MIB:.0f} MiB", spread.max < 200 * MIB) if spread else _unmeasured(promise))


def evaluate(groups):
    """Every promise."""
    return [
        *_against_floor(groups), *_against_peers(groups), *_memory(groups),
        *(_scaling(groups, ours) for ours in OURS),
        *(_bfloat16(groups, ours) for ours in OURS),
        *_quick(groups),
    ]

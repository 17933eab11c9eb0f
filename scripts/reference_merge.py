#!/usr/bin/env python3
"""What a merge must give, worked out by numpy in float64 and rounded once. Shares no code with the tool.

As a library: merge(primary, secondary, options, special) -> {name: Array}; compare(child, expected) -> Comparison.
As a command: compares a child with the reference of its parents; exit 1 if a value is off by more than
one unit in the last place.

    reference_merge.py PRIMARY SECONDARY --child CHILD [-t T] [--method slerp] [--extend gradient] ...
"""
import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fixtures.numbers import FLOATING, round_to, to_float64, ulp, ulp_distance
from fixtures.state_dicts import Array, load

PARALLEL_COSINE = 0.9995
TINY_NORM = 1e-10
EMBEDDING_NAMES = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
TOKENS_LAST_NAMES = ("final_logits_bias", "predictions.dense.weight")
SPECIAL_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")
ALLOWED_ULPS = 1


@dataclass
class Expected(Array):
    """An Array with its values before rounding, and the larger of its two terms, both float64 and flat."""

    exact: object = None
    larger_term: object = None


class Unmergeable(Exception):
    """The parents do not fit together."""


@dataclass(frozen=True)
class Options:
    """The options that change values."""

    t: float = 0.5
    method: str = "slerp"
    extend: str = "gradient"
    missing: str = "primary"
    dtype: str = "keep"


def vocabulary(state_dict):
    """Rows of the input embedding, or None."""
    for ending in EMBEDDING_NAMES:
        for name, array in state_dict.items():
            if name.endswith(ending):
                return array.shape[0]
    return None


def special_tokens(directory):
    """Ids that config.json (its language model's part too) and generation_config.json give to bos, eos and pad."""
    ids = set()
    for file in ("config.json", "generation_config.json"):
        path = Path(directory) / file
        config = json.loads(path.read_text()) if path.exists() else {}
        for part in (config, config.get("text_config"), config.get("llm_config")):
            for key in SPECIAL_KEYS if isinstance(part, dict) else ():
                value = part.get(key)
                ids |= set(value if isinstance(value, list) else [value]) - {None}
    return ids


def edge_rows(count, special):
    """(last, first) row of `count` that is no special token's; where all are, the outermost."""
    plain = [row for row in range(count) if row not in special] or list(range(count))
    return plain[-1], plain[0]


def vocabulary_axis(name, shape_a, shape_b, vocabularies):
    """The axis along which two shapes are the two vocabularies, or None."""
    if len(shape_a) != len(shape_b):
        return None
    axes = [axis for axis, sizes in enumerate(zip(shape_a, shape_b)) if sizes[0] != sizes[1]]
    if len(axes) != 1 or (shape_a[axes[0]], shape_b[axes[0]]) != vocabularies:
        return None
    axis = axes[0]
    alone = np.prod(shape_a) == shape_a[axis]
    last = axis == len(shape_a) - 1 and name.endswith(TOKENS_LAST_NAMES)
    return axis if axis == 0 or alone or last else None


def coefficients(a, b, options):
    """(s0, s1) with child = s0*a + s1*b, for two flat float64 arrays."""
    norms = np.sqrt(a @ a), np.sqrt(b @ b)
    if options.method == "linear" or min(norms, default=0) < TINY_NORM:
        return 1 - options.t, options.t
    cosine = min(1.0, max(-1.0, (a @ b) / (norms[0] * norms[1])))
    if abs(cosine) > PARALLEL_COSINE:
        return 1 - options.t, options.t
    theta = np.arccos(cosine)
    return np.sin((1 - options.t) * theta) / np.sin(theta), np.sin(options.t * theta) / np.sin(theta)


def added_rows(short, long, mode, special=(set(), set())):
    """The rows that `short` lacks, float64; both have at least one row. `special`: ids of the shorter and the
    longer parent's special tokens, whose rows are no edge rows.

    (1 - w)*last + w*end with w = i/(k+1) is taken as ((k+1-i)*last + i*end)/(k+1): for 16-bit rows the
    numerator is exact, so that values half-way between two float16 stay half-way and round to even.
    """
    count = len(long) - len(short)
    place = np.arange(1, count + 1).reshape((-1,) + (1,) * (short.ndim - 1))
    if mode in ("gradient", "bridge"):
        last, first = edge_rows(len(short), special[0])
        end = short[first] if mode == "gradient" else long[edge_rows(len(long), special[1])[0]]
        return ((count + 1 - place) * short[last] + place * end) / (count + 1)
    if mode == "inherit":
        return long[len(short):]
    if mode == "mean":
        return np.repeat(short.mean(axis=0)[None], count, axis=0)
    if mode == "zero":
        return np.zeros((count,) + short.shape[1:])
    raise Unmergeable("the vocabularies differ")


def extended(short, short_dtype, long, mode, axis=0, special=(set(), set())):
    """`short` with the rows it lacks along `axis`, these rounded to its dtype as if they had been stored."""
    short, long = np.moveaxis(short, axis, 0), np.moveaxis(long, axis, 0)
    rows = added_rows(short, long, mode, special)
    stored = to_float64(round_to(rows.reshape(-1), short_dtype), short_dtype).reshape(rows.shape)
    return np.ascontiguousarray(np.moveaxis(np.concatenate([short, stored]), 0, axis))


def merge_pair(name, primary, secondary, vocabularies, options, special):
    """The child of one pair of tensors."""
    if primary.dtype not in FLOATING:
        if primary.shape != secondary.shape:
            raise Unmergeable(f"{name}: {primary.shape} and {secondary.shape}")
        return primary
    a = to_float64(primary.raw, primary.dtype).reshape(primary.shape)
    b = to_float64(secondary.raw, secondary.dtype).reshape(secondary.shape)
    if a.shape != b.shape:
        axis = vocabulary_axis(name, a.shape, b.shape, vocabularies)
        if axis is None:
            raise Unmergeable(f"{name}: {a.shape} and {b.shape}")
        if a.shape[axis] < b.shape[axis]:
            a = extended(a, primary.dtype, b, options.extend, axis, special)
        else:
            b = extended(b, secondary.dtype, a, options.extend, axis, special[::-1])
    s0, s1 = coefficients(a.reshape(-1), b.reshape(-1), options)
    dtype = primary.dtype if options.dtype == "keep" else options.dtype
    terms = (s0 * a).reshape(-1), (s1 * b).reshape(-1)
    exact = terms[0] + terms[1]
    return Expected(dtype, a.shape, round_to(exact, dtype), exact, np.maximum(*map(np.abs, terms)))


def merge(primary, secondary, options, special=(set(), set())):
    """{name: Array} of the child, in the primary's order. `special`: ids of both parents' special tokens."""
    vocabularies = vocabulary(primary), vocabulary(secondary)
    child = {}
    for name, array in primary.items():
        other = secondary.get(name)
        child[name] = (merge_pair(name, array, other, vocabularies, options, special) if other
                       else converted(array, options))
    others = [name for name in secondary if name not in primary]
    if options.missing == "error" and (others or len(primary) != len(set(primary) & set(secondary))):
        raise Unmergeable("the parents do not have the same tensors")
    if options.missing == "union":
        child.update((name, converted(secondary[name], options)) for name in others)
    return child


def converted(array, options):
    """A tensor that one parent alone has."""
    if options.dtype == "keep" or array.dtype not in FLOATING:
        return array
    return Array(options.dtype, array.shape, round_to(to_float64(array.raw, array.dtype), options.dtype))


@dataclass
class Comparison:
    """How a child differs from the reference."""

    differences: list = field(default_factory=list)
    worst_ulps: int = 0
    worst_term_ulps: float = 0.0  # error in units in the last place of the larger term
    off_values: int = 0  # more than ALLOWED_ULPS away
    values: int = 0
    one_ulp_values: int = 0

    @property
    def ok(self):
        """Names, dtypes and shapes agree, and no value is too far off."""
        return not self.differences

    def __str__(self):
        share = self.one_ulp_values / max(self.values, 1)
        text = (f"{self.values} values, worst {self.worst_ulps} ulp (of the larger term {self.worst_term_ulps:.2f}), "
                f"{self.off_values} off by more, {share:.4%} by one")
        return text + "".join(f"\n  {line}" for line in self.differences[:3])


def compare(child, expected):
    """Child and reference, tensor by tensor."""
    result = Comparison()
    if list(child) != list(expected) and sorted(child) != sorted(expected):
        result.differences.append(f"names: {sorted(set(child) ^ set(expected))[:5]}")
        return result
    for name, want in expected.items():
        have = child[name]
        if (have.dtype, have.shape) != (want.dtype, want.shape):
            result.differences.append(f"{name}: {have.dtype} {have.shape}, expected {want.dtype} {want.shape}")
        elif want.dtype not in FLOATING:
            if have.raw != want.raw:
                result.differences.append(f"{name}: {want.dtype} bytes differ")
        else:
            _compare_values(name, have, want, result)
    return result


def _compare_values(name, have, want, result):
    distance = ulp_distance(have.raw, want.raw, want.dtype)
    if not np.isfinite(to_float64(have.raw, have.dtype)).all():
        result.differences.append(f"{name}: NaN or Inf")
    far = int((distance > ALLOWED_ULPS).sum())
    result.values += distance.size
    result.one_ulp_values += int((distance == 1).sum())
    result.off_values += far
    result.worst_ulps = max(result.worst_ulps, int(distance.max(initial=0)))
    if getattr(want, "exact", None) is not None and want.exact.size:
        error = np.abs(to_float64(have.raw, have.dtype) - want.exact)
        scale = np.maximum(want.larger_term, np.abs(want.exact))
        result.worst_term_ulps = max(result.worst_term_ulps, float((error / ulp(scale, want.dtype)).max()))
    if far:
        result.differences.append(f"{name}: {far} of {distance.size} values off by more than {ALLOWED_ULPS} ulp, "
                                  f"the worst by {int(distance.max())}")


def main():
    """Compare a child with the reference of its parents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("primary")
    parser.add_argument("secondary")
    parser.add_argument("--child", required=True)
    parser.add_argument("-t", type=float, default=0.5)
    parser.add_argument("--method", choices=["slerp", "linear"], default="slerp")
    parser.add_argument("--extend", choices=["gradient", "bridge", "inherit", "mean", "zero", "error"],
                        default="gradient")
    parser.add_argument("--missing", choices=["primary", "union", "error"], default="primary")
    parser.add_argument("--dtype", choices=["keep", "float16", "bfloat16", "float32"], default="keep")
    given = parser.parse_args()
    options = Options(given.t, given.method, given.extend, given.missing, given.dtype)
    parents = given.primary, given.secondary
    expected = merge(*map(load, parents), options, tuple(map(special_tokens, parents)))
    result = compare(load(given.child), expected)
    print(result)
    raise SystemExit(0 if result.ok else 1)


if __name__ == "__main__":
    main()

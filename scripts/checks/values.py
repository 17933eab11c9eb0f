"""Values of children against reference_merge.py, and the identities that hold to the bit."""
import json

import numpy as np
import torch
from fixtures.numbers import to_float64
from fixtures.state_dicts import load
from reference_merge import Options, compare, merge, special_tokens

from .core import DATA, check, sha256_of_weights, weight_files

PAIRS = [("llama/primary", "llama/secondary"), ("llama/secondary", "llama/primary"), ("gpt2/primary", "gpt2/secondary"),
         ("neox/primary", "neox/secondary"), ("neox/secondary", "neox/primary")]
EQUAL_SHAPES = [pair for pair in PAIRS if "llama" not in pair[0]]


def label_of(pair):
    """'llama/primary + secondary'."""
    return f"{pair[0]} + {pair[1].split('/')[1]}"


def words(options):
    """The command line's words for Options."""
    return ["-t", options.t, "--method", options.method, "--extend", options.extend, "--missing", options.missing,
            "--dtype", options.dtype]


def against_reference(context, label, primary, secondary, options, *more):
    """Merge, work it out, compare; one line."""
    child = context.merge(primary, secondary, *words(options), *more)
    special = special_tokens(primary), special_tokens(secondary)
    result = compare(load(child), merge(load(primary), load(secondary), options, special))
    context.expect(result.ok, label, result)
    return child


@check()
def every_value_within_one_ulp_of_float64(context):
    """All pairs, several t, both methods."""
    for pair in PAIRS:
        for t in (0.0, 0.1, 0.3, 0.5, 0.77, 1.0):
            against_reference(context, f"{label_of(pair)} t={t}", DATA / pair[0], DATA / pair[1], Options(t))
        against_reference(context, f"{label_of(pair)} linear", DATA / pair[0], DATA / pair[1], Options(0.25, "linear"))


@check()
def other_dtypes_within_one_ulp(context):
    """--dtype rounds once."""
    for pair in PAIRS[:4]:
        for dtype in ("float16", "bfloat16", "float32"):
            against_reference(context, f"{label_of(pair)} as {dtype}", DATA / pair[0], DATA / pair[1],
                              Options(0.4, dtype=dtype))
    child = load(context.merge(*(DATA / side for side in PAIRS[4]), "--dtype", "float16"))
    masks = {array.raw for name, array in child.items() if name.endswith("masked_bias")}
    context.expect(masks == {b"\x00\xfc"}, "-1e9 in a mask as float16 is -inf, as torch makes it", f"{masks}")


@check()
def missing_tensors_by_rule(context):
    """--missing primary, union, error."""
    for missing in ("primary", "union"):
        for pair in (PAIRS[3], PAIRS[4]):
            against_reference(context, f"{label_of(pair)} --missing {missing}", DATA / pair[0], DATA / pair[1],
                              Options(0.5, missing=missing))
    refused = context.run("merge", DATA / PAIRS[3][0], DATA / PAIRS[3][1], "-o", context.fresh(), "--missing", "error")
    context.expect(refused.code == 65 and "inv_freq" in refused.stderr, "--missing error refuses and names them",
                   f"exit {refused.code}")


@check()
def t_zero_and_one_give_the_parents_bytes(context):
    """Same dtype and shape: the parents' values to the bit, signs of zeros included."""
    for pair in EQUAL_SHAPES:
        parents = [load(DATA / side) for side in pair]
        for t, parent in zip((0, 1), parents):
            child = load(context.merge(DATA / pair[0], DATA / pair[1], "-t", t))
            shared = [name for name in child if name in parents[0] and name in parents[1]]
            floats = [name for name in shared if "float" in child[name].dtype]
            different = [name for name in floats if child[name].raw != parent[name].raw]
            context.expect(not different, f"{label_of(pair)} t={t}: {len(floats)} tensors", ", ".join(different[:3]))


@check()
def merge_of_a_model_with_itself_is_itself(context):
    """merge(a, a, 0.37) is a to the bit, for every parent and method."""
    for name in sorted({side for pair in PAIRS for side in pair}):
        for method in ("slerp", "linear"):
            child = load(context.merge(DATA / name, DATA / name, "-t", 0.37, "--method", method))
            parent = load(DATA / name)
            different = [key for key in parent if parent[key] != child.get(key)]
            context.expect(not different and sorted(child) == sorted(parent), f"{name} {method}", ", ".join(different[:3]))


@check()
def swapping_parents_and_t_differs_by_one_ulp_at_most(context):
    """merge(a, b, t) and merge(b, a, 1 - t)."""
    for pair in (PAIRS[0], PAIRS[2]):
        one = load(context.merge(DATA / pair[0], DATA / pair[1], "-t", 0.3))
        two = load(context.merge(DATA / pair[1], DATA / pair[0], "-t", 0.7))
        result = compare(one, two)
        context.expect(result.ok, label_of(pair), result)


@check()
def threads_do_not_change_a_byte(context):
    """--threads 1, 2, 7: the same sha256 of every file."""
    for pair in PAIRS[:4]:
        digests = [sha256_of_weights(context.merge(DATA / pair[0], DATA / pair[1], "--threads", threads,
                                                   "--max-shard-size", "60KB")) for threads in (1, 2, 7)]
        context.expect(digests[0] == digests[1] == digests[2], label_of(pair), f"{len(digests[0])} files")


@check()
def linear_at_one_half_is_the_mean(context):
    """Independent of reference_merge: torch's own float64 mean."""
    for pair in EQUAL_SHAPES:
        parents = [load(DATA / side) for side in pair]
        child = load(context.merge(DATA / pair[0], DATA / pair[1], "--method", "linear", "-t", 0.5))
        worst = 0.0
        for name, array in child.items():
            if "float" not in array.dtype or not all(name in parent for parent in parents):
                continue
            mean = sum(to_float64(parent[name].raw, parent[name].dtype) for parent in parents) / 2
            rounded = torch.from_numpy(mean).to(getattr(torch, array.dtype)).double().numpy()
            worst = max(worst, float(np.abs(rounded - to_float64(array.raw, array.dtype)).max(initial=0)))
        context.expect(worst == 0, label_of(pair), f"largest difference {worst:g}")


@check()
def files_agree_with_the_committed_children(context):
    """Names and sizes of the files that tests/data/expected/cases.json lists."""
    for case in json.loads((DATA / "expected/cases.json").read_text()):
        child = context.merge(DATA / case["primary"], DATA / case["secondary"], *case["options"])
        for entry in case.get("files", []):
            path = weight_files(child).get(entry["name"])
            size = path.stat().st_size if path else None
            context.expect(size == entry["bytes"], f"{case['name']}: {entry['name']}", f"{size} bytes")
        if "directory" in case:
            result = compare(load(child), load(DATA / case["directory"]))
            context.expect(result.ok, f"{case['name']}: values", result)

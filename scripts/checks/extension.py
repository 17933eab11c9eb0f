"""Extension of the shorter vocabulary: each mode, both directions, k = 1, 8 and 300."""
import json

from fixtures.numbers import to_float64, ulp_distance
from fixtures.state_dicts import load
from reference_merge import Options, added_rows

from . import variants
from .core import DATA, check
from .values import against_reference

MODES = ["gradient", "bridge", "inherit", "mean", "zero"]
PRIMARY, SECONDARY = DATA / "llama/primary", DATA / "llama/secondary"
SHORT_ROWS = 512


@check()
def every_mode_in_both_directions(context):
    """Values of embedding and lm_head (and all the rest) against the reference."""
    for added in (1, 300):
        long = variants.with_vocabulary(context.fresh("long"), SHORT_ROWS + added, SECONDARY, seed=added)
        for mode in MODES:
            for label, parents in (("primary shorter", (PRIMARY, long)), ("secondary shorter", (long, PRIMARY))):
                child = against_reference(context, f"{mode}, {label}, k={added}", *parents, Options(0.4, extend=mode))
                rows = json.loads((child / "config.json").read_text())["vocab_size"]
                context.expect(rows == SHORT_ROWS + added, f"{mode}, {label}, k={added}: vocab_size", rows)


@check()
def added_tokens_of_the_fixture_in_every_mode(context):
    """k = 8, with the tokenizers."""
    for mode in MODES:
        against_reference(context, f"{mode}, primary shorter", PRIMARY, SECONDARY, Options(0.5, extend=mode))
        against_reference(context, f"{mode}, secondary shorter", SECONDARY, PRIMARY, Options(0.5, extend=mode))


@check()
def added_rows_alone(context):
    """At t = 0 with linear, the child's new rows are the extension itself: its values, k = 1 and 300."""
    short = load(PRIMARY)
    for added in (1, 300):
        long_directory = variants.with_vocabulary(context.fresh("long"), SHORT_ROWS + added, SECONDARY, seed=added)
        long = load(long_directory)
        for mode in MODES:
            child = load(context.merge(PRIMARY, long_directory, "-t", 0, "--extend", mode))
            for name in variants.VOCABULARY_TENSORS:
                a, b = (to_float64(side[name].raw, side[name].dtype).reshape(side[name].shape) for side in (short, long))
                wanted = added_rows(a, b, mode).astype("<f2").tobytes()
                width = len(short[name].raw)
                kept = child[name].raw[:width] == short[name].raw
                worst = int(ulp_distance(child[name].raw[width:], wanted, "float16").max())
                context.expect(kept and worst <= 1, f"{mode}, k={added}, {name}", f"old rows kept: {kept}, worst {worst} ulp")


@check()
def extension_error_refuses(context):
    """--extend error names the tensors."""
    refused = context.run("merge", PRIMARY, SECONDARY, "-o", context.fresh(), "--extend", "error")
    named = all(name in refused.stderr for name in variants.VOCABULARY_TENSORS)
    context.expect(refused.code == 65 and named, "exit 65, both tensors named", f"exit {refused.code}")


@check()
def tokenizer_of_the_longer_vocabulary(context):
    """The child's tokenizer is that of the parent whose rows it has."""
    for primary, secondary in ((PRIMARY, SECONDARY), (SECONDARY, PRIMARY)):
        child = context.merge(primary, secondary)
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            same = (child / name).read_bytes() == (SECONDARY / name).read_bytes()
            context.expect(same, f"{primary.name} + {secondary.name}: {name}")

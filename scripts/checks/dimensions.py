"""Vocabularies of 200 and 208 in other dimensions than the first: BART, Marian, MobileBERT."""
from reference_merge import Options
from transformers import BartForConditionalGeneration, MarianMTModel, MobileBertForMaskedLM

from .core import DATA, check, equal_files, weight_files
from .extension import MODES
from .values import against_reference

ROWS = DATA / "wild/rows"
FAMILIES = {"bart": BartForConditionalGeneration, "marian": MarianMTModel, "mobilebert": MobileBertForMaskedLM}


def both_ways():
    """(label, class, primary, secondary) of every family, with either parent as the shorter one."""
    for name, family in FAMILIES.items():
        yield f"{name}, primary shorter", family, ROWS / name / "a", ROWS / name / "b"
        yield f"{name}, secondary shorter", family, ROWS / name / "b", ROWS / name / "a"


@check()
def every_mode_along_other_dimensions(context):
    """Values of all tensors against the reference."""
    for label, _, primary, secondary in both_ways():
        for mode in MODES:
            against_reference(context, f"{mode}, {label}", primary, secondary, Options(0.3, extend=mode))


@check()
def other_dimensions_saved_again_compare_equal(context):
    """transformers loads each child without a missing, unexpected or mismatched key and saves the same bytes."""
    for label, family, *parents in both_ways():
        for size in ("5GB", "5KB"):
            # Marian's positions count as parameters and are in no file: only an index knows of them.
            saved = [saved_again(context, family, parent, size)[0] for parent in parents]
            child = context.merge(*saved, "--max-shard-size", size)
            again, report = saved_again(context, family, child, size)
            wrong = {key: names for key, names in report.items() if names}
            context.expect(not wrong, f"{label} at {size}: every key loads", wrong)
            difference = equal_files(child, again)
            context.expect(not difference, f"{label} at {size}: cmp", difference or f"{len(weight_files(child))} files")


def saved_again(context, family, directory, size):
    """A model as transformers loads and saves it, and what it says of the keys."""
    again = context.fresh("child")
    model, report = family.from_pretrained(directory, dtype="auto", output_loading_info=True)
    model.save_pretrained(again, safe_serialization=False, max_shard_size=size)
    return again, report

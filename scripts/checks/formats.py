"""Parents and children in safetensors: six families of transformers 4.57.3, in shards, in every mix of formats.

Children in `.bin` have the values of the child of two `.bin` parents; children in safetensors are what `save_pretrained`
writes, byte for byte, index included; and a model that is converted is what `save_pretrained` writes of it.
"""
import itertools

import torch
from transformers import AutoConfig

from .core import MergeFailed, check, equal_files, short
from .families import BERT, FAMILIES, GPT2, LLAMA, SEEDS, T5

SHARDS = "50KB"
TIED = {**LLAMA, "tie_word_embeddings": True}
SIX = {
    "llama": (LLAMA, torch.bfloat16), "qwen2": (TIED, torch.float16), "gpt2": (GPT2, torch.float32), "t5": (T5, torch.float32),
    "bert": (BERT, torch.float16), "mixtral": ({**LLAMA, "num_local_experts": 4}, torch.bfloat16),
}
FORMATS = ("bin", "safetensors")


def random_model(family, rows):
    """As of families.py, in this check's sizes and dtypes."""
    sizes, dtype = SIX[family]
    torch.manual_seed(SEEDS[rows])
    model = FAMILIES[family][0].from_config(AutoConfig.for_model(family, vocab_size=rows, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    return model.to(dtype)


def saved(model, directory, kind):
    """The model in a directory, in shards of this format."""
    model.save_pretrained(directory, safe_serialization=kind == "safetensors", max_shard_size=SHARDS)
    return directory


def loaded(family, directory):
    """The model in a directory, whose keys all fit."""
    model, report = FAMILIES[family][0].from_pretrained(directory, dtype="auto", output_loading_info=True)
    wrong = {key: report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if report[key]}
    if wrong:
        raise MergeFailed(f"{short(directory)}: {wrong}")
    return model


def other_values(ours, theirs):
    """Names of tensors that differ."""
    ours, theirs = ours.state_dict(), theirs.state_dict()
    return [name for name in {**ours, **theirs} if name not in ours or name not in theirs
            or not torch.equal(ours[name].view(torch.uint8), theirs[name].view(torch.uint8))]


def convert(context, model, kind):
    """The model converted; its directory. Raises MergeFailed unless the exit code is 0."""
    out = context.fresh("converted")
    finished = context.run("convert", model, "-o", out, "--format", kind, "--max-shard-size", SHARDS, "--no-fsync")
    if finished.code != 0:
        raise MergeFailed(f"convert {short(model)}: exit {finished.code}: {finished.last_lines}")
    return out


@check()
def parents_and_children_in_safetensors(context):
    """Every mix of formats of both parents and the child."""
    for family in SIX:
        models = [random_model(family, rows) for rows in (200, 208)]
        paths = [{kind: saved(model, context.fresh(kind), kind) for kind in FORMATS} for model in models]
        merged = context.merge(paths[0]["bin"], paths[1]["bin"], "--max-shard-size", SHARDS)
        model = loaded(family, merged)
        wanted = saved(model, context.fresh("wanted"), "safetensors")
        for mix in itertools.product(FORMATS, FORMATS):
            parents = [path[kind] for path, kind in zip(paths, mix)]
            options = ["--max-shard-size", SHARDS, "--format"]
            child = context.merge(*parents, *options, "bin")
            wrong = other_values(loaded(family, child), model)
            context.expect(not wrong, f"{family}: values of .bin of {' and '.join(mix)}", ", ".join(wrong[:3]))
            if mix[0] == "bin":
                difference = equal_files(child, merged)
                context.expect(not difference, f"{family}: bytes of .bin of {' and '.join(mix)}", difference)
            child = context.merge(*parents, *options, "safetensors")
            difference = equal_files(child, wanted)
            context.expect(not difference, f"{family}: bytes of safetensors of {' and '.join(mix)}", difference)


@check()
def converted_models(context):
    """A model converted, and back again where no name was left out."""
    for family in SIX:
        model = random_model(family, 200)
        paths = {kind: saved(model, context.fresh(kind), kind) for kind in FORMATS}
        for source, kind in itertools.product(FORMATS, FORMATS):
            out = convert(context, paths[source], kind)
            wrong = other_values(loaded(family, out), loaded(family, paths[source]))
            context.expect(not wrong, f"{family}: values of {source} as {kind}", ", ".join(wrong[:3]))
            if kind == "safetensors" or source == "bin" or family in ("llama", "mixtral"):
                difference = equal_files(out, paths[kind])
                context.expect(not difference, f"{family}: bytes of {source} as {kind}", difference)

"""mergekit's recipes: each child is the one that mergekit 0.1.4 makes of the same file."""
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass

import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from .core import DATA, REPOSITORY, check

VENV = REPOSITORY / ".venv-mergekit"
REQUIREMENTS = REPOSITORY / "scripts" / "mergekit-requirements.txt"
LAYERS = 8
RELATIVE = 2e-3
HALF = "parameters: {t: 0.5}\n"
FILTERS = """parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5
"""


def source(model, first, last):
    """A line of `sources`."""
    return f"      - {{model: {model}, layer_range: [{first}, {last}]}}\n"


def slices(*sources, parameters=("",) * 9):
    """The slices, each of two sources."""
    lines = [f"  - sources:\n{a}{b}{own}" for (a, b), own in zip(sources, parameters)]
    return "slices:\n" + "".join(lines)


def models(a, b, weights=None):
    """`models`, with the weights that linear needs."""
    weights = weights or (None, None)
    of = [f"  - model: {name}\n" + (f"    parameters: {{weight: {weight}}}\n" if weight is not None else "")
          for name, weight in zip((a, b), weights)]
    return "models:\n" + "".join(of)


WHOLE = (source("a", 0, LAYERS), source("b", 0, LAYERS))
SLERP_A = "merge_method: slerp\nbase_model: a\n"
SLERP_B = "merge_method: slerp\nbase_model: b\n"


@dataclass(frozen=True)
class Recipe:
    """A recipe, the dtype of its parents, and how often mergekit rounds where this tool does not."""

    name: str
    text: str
    dtype: str = "float32"
    own_roundings: int = 0


RECIPES = [
    Recipe("base-second", slices(WHOLE) + SLERP_B + FILTERS + "dtype: float32\n"),
    Recipe("number", models("a", "b") + SLERP_A + "parameters: {t: 0.35}\n"),
    Recipe("list", models("a", "b") + SLERP_A + "parameters: {t: [0.2, 1, 0.4]}\n"),
    Recipe("base-not-listed", models("b", "b").replace("  - model: b\n", "", 1) + SLERP_A + HALF),
    Recipe("filters-float16", slices(WHOLE) + SLERP_A + FILTERS, "float16"),
    Recipe("filters-bfloat16", models("a", "b") + SLERP_B + FILTERS, "bfloat16"),
    Recipe("partial-range", slices((source("a", 0, 6), source("b", 0, 6))) + SLERP_A + FILTERS),
    Recipe("middle", slices((source("b", 2, 7), source("a", 2, 7))) + SLERP_A + "parameters: {t: [0, 1]}\n"),
    Recipe("shifted", slices((source("a", 0, 4), source("b", 4, 8))) + SLERP_A + FILTERS),
    Recipe("per-slice", slices((source("a", 0, 3), source("b", 0, 3)), (source("a", 3, 8), source("b", 3, 8)),
                               parameters=("    parameters: {t: [0.1, 0.9]}\n",
                                           "    parameters: {t: [{filter: mlp, value: 0.8}]}\n")) + SLERP_A + HALF),
    Recipe("repeated", slices((source("a", 0, 5), source("b", 0, 5)), (source("a", 3, 8), source("b", 2, 7)),
                              (source("a", 7, 8), source("b", 7, 8))) + SLERP_B + "parameters: {t: [0.2, 0.7]}\n"),
    Recipe("linear", models("a", "b", (0.6, 0.2)) + "merge_method: linear\nbase_model: a\n"),
    Recipe("linear-lists", models("b", "a", ("[1, 0.5, 0]", "[0, 0.5, 1]")) + "merge_method: linear\nbase_model: a\n"),
    Recipe("linear-float16", models("a", "b", (1, 3)) + "merge_method: linear\nbase_model: a\n", "float16", 3),
    Recipe("out-dtype", models("a", "b") + SLERP_A + FILTERS + "dtype: float32\nout_dtype: bfloat16\n"),
    Recipe("dtype-of-inputs", models("a", "b") + SLERP_A + FILTERS + "dtype: bfloat16\n", "float32", 2),
    Recipe("tokenizer-base", slices(WHOLE) + SLERP_A + HALF + "tokenizer_source: base\n"),
    Recipe("tokenizer-union", models("a", "b") + SLERP_A + FILTERS + "tokenizer: {source: union}\nchat_template: auto\n"),
]


def python():
    """The Python with mergekit, made where it is missing; torch and transformers are this one's."""
    stamp, wanted = VENV / "installed.txt", REQUIREMENTS.read_text(encoding="utf-8")
    program = VENV / "bin" / "python"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        subprocess.run([str(program), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r",
                        str(REQUIREMENTS)], check=True)
        own = subprocess.run([str(program), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True,
                             capture_output=True, text=True).stdout.strip()
        with open(os.path.join(own, "conformance.pth"), "w", encoding="utf-8") as paths:
            paths.write(sysconfig.get_path("purelib") + "\n")
        stamp.write_text(wanted, encoding="utf-8")
    return program


def parents(directory, dtype):
    """Two Llamas of eight layers, `a` and `b`."""
    for name, seed in (("a", 1), ("b", 2)):
        torch.manual_seed(seed)
        config = LlamaConfig(vocab_size=512, hidden_size=64, intermediate_size=112, num_hidden_layers=LAYERS, head_dim=16,
                             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64)
        model = LlamaForCausalLM(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        model.to(getattr(torch, dtype)).save_pretrained(directory / name, safe_serialization=False)
        for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            shutil.copy(DATA / "llama/primary" / file, directory / name / file)


def distance(ours, theirs, own_roundings):
    """How far the farthest element is beyond what is allowed, as a part of that; at most 1 is well."""
    a, b = ours.to(torch.float64), theirs.to(torch.float64)
    apart = (a - b).abs()
    if theirs.dtype == torch.float32 and not own_roundings:
        return (apart.norm() / b.norm().clamp(min=1e-30)).item() / RELATIVE
    epsilon = torch.finfo(theirs.dtype).eps
    # One unit in the last place, and float32's own rounding where the parents cancel each other; each
    # rounding more is half a unit of values as large as the parents'.
    largest = b.abs().max()
    allowed = b.abs() * epsilon + (own_roundings * epsilon + 1e-6) * largest + torch.finfo(theirs.dtype).tiny
    return (apart / allowed).max().item()


@check()
def each_recipe_makes_the_child_that_mergekit_makes(context):
    """Names, dtypes, shapes, depth, and every value."""
    work = context.fresh("recipes")
    work.mkdir()
    dtypes = sorted({recipe.dtype for recipe in RECIPES})
    for dtype in dtypes:
        parents(work / dtype, dtype)
    for dtype in dtypes:
        words = []
        for recipe in RECIPES:
            if recipe.dtype == dtype:
                (work / dtype / f"{recipe.name}.yml").write_text(recipe.text, encoding="utf-8")
                words += [f"{recipe.name}.yml", f"mergekit-{recipe.name}"]
        subprocess.run([str(python()), str(REPOSITORY / "scripts/checks/run_mergekit.py"), *words], check=True,
                       cwd=work / dtype, env={**os.environ, "HF_HUB_OFFLINE": "1"}, stdout=subprocess.DEVNULL)
    for recipe in RECIPES:
        here = work / recipe.dtype
        run = context.run("merge", "--recipe", f"{recipe.name}.yml", "-o", "ours-{name}", "--no-fsync", "--no-progress",
                          cwd=here)
        if not context.expect(run.code == 0, f"{recipe.name}: merged", run.last_lines):
            continue
        compare(context, recipe, here / f"ours-{recipe.name}", here / f"mergekit-{recipe.name}")


def compare(context, recipe, ours, theirs):
    """One recipe's two children."""
    child = torch.load(ours / "pytorch_model.bin", weights_only=True)
    expected = load_file(theirs / "model.safetensors")
    context.expect(sorted(child) == sorted(expected), f"{recipe.name}: names",
                   str(sorted(set(child) ^ set(expected))[:4]) if set(child) != set(expected) else f"{len(child)} tensors")
    alike = all((child[name].dtype, child[name].shape) == (expected[name].dtype, expected[name].shape)
                for name in expected if name in child)
    context.expect(alike, f"{recipe.name}: dtypes and shapes")
    depths = [json.loads((path / "config.json").read_text())["num_hidden_layers"] for path in (ours, theirs)]
    context.expect(depths[0] == depths[1], f"{recipe.name}: layers", f"{depths}")
    farthest = max((distance(child[name], expected[name], recipe.own_roundings), name) for name in expected if name in child)
    context.expect(farthest[0] <= 1, f"{recipe.name}: values", f"{farthest[0]:.2g} of what is allowed, in {farthest[1]}")
    model = LlamaForCausalLM.from_pretrained(ours)
    context.expect(len(model.model.layers) == depths[0], f"{recipe.name}: transformers loads it")


@check()
def batch_takes_recipes_as_they_are(context):
    """Three recipes over one pair: the children of three merges, made in one pass over the parents."""
    work = context.fresh("recipes")
    work.mkdir()
    parents(work, "float32")
    names = ["number", "list", "base-not-listed"]
    for recipe in RECIPES:
        if recipe.name in names:
            (work / f"{recipe.name}.yml").write_text(recipe.text, encoding="utf-8")
    files = [f"{name}.yml" for name in names]
    run = context.run("batch", *files, "-o", "children/{name}", "--json", cwd=work)
    jobs = json.loads(run.stdout)["jobs"]
    context.expect([job["result"] for job in jobs] == ["merged"] * 3, "merged", run.last_lines)
    context.expect(jobs[0]["sweep"] == [0, 1, 2], "one sweep", str(jobs[0]["sweep"]))
    for name in names:
        context.run("merge", "--recipe", f"{name}.yml", "-o", "own-{name}", "--no-fsync", cwd=work)
        own, child = (torch.load(work / path / "pytorch_model.bin", weights_only=True)
                      for path in (f"own-{name}", f"children/{name}"))
        context.expect(all(torch.equal(own[key], child[key]) for key in own), f"{name}: as a merge of its own")
    again = json.loads(context.run("batch", *files, "-o", "children/{name}", "--json", cwd=work).stdout)["jobs"]
    context.expect([job["result"] for job in again] == ["present"] * 3, "again: nothing is done")

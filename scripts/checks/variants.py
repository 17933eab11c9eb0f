"""Parents made from the fixtures for one check: other vocabularies, bad values, broken files."""
import json
import shutil

import torch
from fixtures import state_dicts

from .core import DATA

LLAMA = DATA / "llama/primary"
VOCABULARY_TENSORS = ("model.embed_tokens.weight", "lm_head.weight")


def tensors_of(model):
    """{name: tensor} of a model, each with a storage of its own."""
    return {name: state_dicts.to_tensor(array) for name, array in state_dicts.load(model).items()}


def write(directory, tensors, source=LLAMA, shards=1, **config_changes):
    """A model directory without a tokenizer: config.json of `source`, changed, and the tensors."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {**json.loads((source / "config.json").read_text()), **config_changes}
    (directory / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    if shards == 1:
        torch.save(tensors, directory / "pytorch_model.bin")
        return directory
    names, weight_map = list(tensors), {}
    for number in range(shards):
        file = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        members = names[number::shards]
        torch.save({name: tensors[name] for name in members}, directory / file)
        weight_map.update(dict.fromkeys(members, file))
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    write_index(directory, {"metadata": {"total_size": total}, "weight_map": weight_map})
    return directory


def write_index(directory, index):
    """pytorch_model.bin.index.json."""
    (directory / state_dicts.INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def read_index(directory):
    """pytorch_model.bin.index.json."""
    return json.loads((directory / state_dicts.INDEX).read_text())


def with_vocabulary(directory, rows, source, seed):
    """A Llama whose embedding and head are cut to, or filled up with noise to, `rows` rows."""
    generator = torch.Generator().manual_seed(seed)
    tensors = tensors_of(source)
    for name in VOCABULARY_TENSORS:
        old = tensors[name]
        noise = torch.randn(max(0, rows - len(old)), old.shape[1], generator=generator) * old.float().std()
        tensors[name] = torch.cat([old[:rows], noise.to(old.dtype)]).clone()
    return write(directory, tensors, source, vocab_size=rows)


def changed(directory, change, source=LLAMA, **config_changes):
    """A copy of `source` in one file after `change(tensors)`."""
    tensors = tensors_of(source)
    change(tensors)
    return write(directory, tensors, source, **config_changes)


def copied(directory, source=LLAMA):
    """A plain copy of a fixture, to be broken."""
    shutil.copytree(source, directory)
    return directory

#!/usr/bin/env python3
"""Merge two checkpoints as the original SLERP scripts did: both state dicts whole in memory, tensor by tensor in numpy.

Written from a description of the scripts by Digitous and CalderaAI (after dvschultz), to be measured by bench.py:
SLERP in float32 over the whole tensor, lerp where |cos| > 0.9995, results kept in float32 until they are loaded back
into the primary's state dict, a shorter vocabulary filled up with zeros, the child saved in shards by torch.save.
Reading and saving go through torch alone, without building the models, which spares it what transformers costs.

    bench_original.py PRIMARY SECONDARY OUT [--t 0.5]
"""
import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch

PARALLEL = 0.9995
SMALLEST_NORM = 1e-10
MAX_SHARD_BYTES = 5 * 10**9


def load(directory):
    """Every tensor of a model directory, in memory."""
    state = {}
    for shard in sorted(directory.glob("pytorch_model*.bin")):
        state.update(torch.load(shard, map_location="cpu", weights_only=True))
    return state


def unit(values):
    """`values` over their norm, or as they are where the norm is next to nothing."""
    norm = np.linalg.norm(values)
    return values / norm if norm > SMALLEST_NORM else values


def slerp(t, primary, secondary):
    """The point at `t` on the arc between two float32 arrays."""
    cosine = np.sum(unit(primary) * unit(secondary))
    if np.abs(cosine) > PARALLEL:
        return (1 - t) * primary + t * secondary
    angle = np.arccos(cosine)
    sine = np.sin(angle)
    return np.sin((1 - t) * angle) / sine * primary + np.sin(t * angle) / sine * secondary


def filled(tensor, shape):
    """`tensor` with rows of zeros up to `shape`."""
    if tensor.shape == shape:
        return tensor
    larger = torch.zeros(shape, dtype=tensor.dtype)
    larger[: tensor.shape[0]] = tensor
    return larger


def merge(primary, secondary, t):
    """The child's state dict, in float32."""
    child = {}
    for name, tensor in primary.items():
        shape = max(tensor.shape, secondary[name].shape)
        primary[name] = filled(tensor, shape)
        other = filled(secondary[name], shape)
        values = slerp(t, primary[name].float().numpy().ravel(), other.float().numpy().ravel())
        child[name] = torch.from_numpy(np.asarray(values, dtype=np.float32)).reshape(shape)
    return child


def load_state_dict(target, source):
    """Copy `source` into the tensors of `target`, which keep their dtype."""
    for name, tensor in source.items():
        target[name].copy_(tensor)


def split(state):
    """The state dict in shards of at most MAX_SHARD_BYTES."""
    shards, size = [{}], 0
    for name, tensor in state.items():
        if shards[-1] and size + tensor.nbytes > MAX_SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards


def save(state, out):
    """Shards and their index, named as save_pretrained names them."""
    out.mkdir(parents=True)
    shards, weight_map = split(state), {}
    for number, shard in enumerate(shards, 1):
        name = f"pytorch_model-{number:05d}-of-{len(shards):05d}.bin" if len(shards) > 1 else "pytorch_model.bin"
        torch.save(shard, out / name)
        weight_map.update(dict.fromkeys(shard, name))
    if len(shards) > 1:
        metadata = {"total_size": sum(tensor.nbytes for tensor in state.values())}
        index = {"metadata": metadata, "weight_map": weight_map}
        (out / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def main():
    """Merge PRIMARY and SECONDARY into OUT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("primary", type=Path)
    parser.add_argument("secondary", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--t", type=float, default=0.5)
    given = parser.parse_args()
    primary, secondary = load(given.primary), load(given.secondary)
    load_state_dict(primary, merge(primary, secondary, given.t))
    save(primary, given.out)
    shutil.copy(given.primary / "config.json", given.out)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Make two big Llama-shaped checkpoints to merge: for wall time, peak RSS and the > 4 GiB shard.

Needs numpy only, no torch. Weights are drawn from one random block per parent, read from a different
place for every tensor, so a pair of 1.1B takes seconds and memory stays at some 100 MB. The two
parents are correlated as fine-tunes are (cos about 0.9), so most tensors take the slerp path; the
norms take the lerp path.

    make_pair.py --shape 1.1b --vocab 32000 32032 --out /data/pair     writes /data/pair/a and /data/pair/b
    make_pair.py --sparse 70b --out /data/huge                         holes: correct headers, no disk used
"""
import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fixtures.torch_zip import Record, Tensor, write_shard

BLOCK_ELEMENTS = 8 * 1024 * 1024 + 77  # no divisor in common with any row length
SPARSE_HEAD_ELEMENTS = 2048  # nonzero values at the start of each tensor of a sparse pair
WEIGHT_SCALE = 0.02
SECONDARY_MIX = (0.9, 0.436)  # primary's direction, own direction: cos 0.9


@dataclass(frozen=True)
class Shape:
    """The numbers that fix every tensor of a Llama."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int

    @property
    def kv_width(self):
        """Rows of k_proj and v_proj."""
        return self.hidden // self.heads * self.kv_heads


SHAPES = {
    "0.1b": Shape(768, 2048, 8, 12, 12),
    "1.1b": Shape(2048, 5632, 22, 32, 4),  # TinyLlama
    "7b": Shape(4096, 11008, 32, 32, 32),
    "70b": Shape(8192, 28672, 80, 64, 8),
}


def tensor_shapes(shape, vocab):
    """(name, shape) of every tensor, in the order transformers registers them."""
    hidden, inner, kv_width = shape.hidden, shape.intermediate, shape.kv_width
    yield "model.embed_tokens.weight", (vocab, hidden)
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        yield prefix + "self_attn.q_proj.weight", (hidden, hidden)
        yield prefix + "self_attn.k_proj.weight", (kv_width, hidden)
        yield prefix + "self_attn.v_proj.weight", (kv_width, hidden)
        yield prefix + "self_attn.o_proj.weight", (hidden, hidden)
        yield prefix + "mlp.gate_proj.weight", (inner, hidden)
        yield prefix + "mlp.up_proj.weight", (inner, hidden)
        yield prefix + "mlp.down_proj.weight", (hidden, inner)
        yield prefix + "input_layernorm.weight", (hidden,)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (vocab, hidden)


def config(shape, vocab, dtype):
    """config.json of a Llama of this shape."""
    return {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": 1, "dtype": dtype, "eos_token_id": 2, "head_dim": shape.hidden // shape.heads,
        "hidden_act": "silu", "hidden_size": shape.hidden, "initializer_range": 0.02,
        "intermediate_size": shape.intermediate, "max_position_embeddings": 2048, "mlp_bias": False,
        "model_type": "llama", "num_attention_heads": shape.heads, "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_scaling": None, "rope_theta": 10000.0, "tie_word_embeddings": False,
        "transformers_version": "4.57.3", "use_cache": True, "vocab_size": vocab,
    }


def to_bytes(values, dtype):
    """float32 array -> little-endian bytes of `dtype`, rounded to nearest even."""
    if dtype == "bfloat16":
        bits = values.astype("<f4").view("<u4")
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    return values.astype({"float16": "<f2", "float32": "<f4"}[dtype]).tobytes()


class Source:
    """Weights of one parent: two blocks of bytes, one for matrices and one for norms."""

    def __init__(self, dtype, secondary):
        values = np.random.default_rng(1).standard_normal(BLOCK_ELEMENTS, dtype=np.float32)
        if secondary:
            own = np.random.default_rng(2).standard_normal(BLOCK_ELEMENTS, dtype=np.float32)
            values = np.float32(SECONDARY_MIX[0]) * values + np.float32(SECONDARY_MIX[1]) * own
        values *= np.float32(WEIGHT_SCALE)
        self.item = {"float16": 2, "bfloat16": 2, "float32": 4}[dtype]
        self.matrix = to_bytes(values, dtype)
        self.norm = to_bytes(1 + values[: 1 << 16], dtype)

    def chunks(self, name, numel):
        """`numel` elements as byte pieces; where reading starts depends on the tensor's name."""
        block = self.norm if "norm" in name else self.matrix
        start = sum(ord(letter) * 2654435761 * place for place, letter in enumerate(name, 1))
        position, left = start * self.item % len(block), numel * self.item
        position -= position % self.item
        view = memoryview(block)
        while left:
            piece = view[position : position + left]
            yield piece
            left -= len(piece)
            position = 0


def payload(source, name, numel, sparse):
    """A function that gives the tensor's Record."""
    if not sparse:
        return lambda: Record(source.chunks(name, numel))
    head = min(numel, SPARSE_HEAD_ELEMENTS)
    return lambda: Record(source.chunks(name, head), (numel - head) * source.item)


def split(tensors, max_shard_bytes):
    """HuggingFace's rule (docs/formats.md, C.2) for tensors that share nothing."""
    shards, current, current_bytes = [], [], 0
    for tensor in tensors:
        if tensor.size_bytes > max_shard_bytes:
            shards.append([tensor])
            continue
        if current_bytes + tensor.size_bytes > max_shard_bytes:
            shards.append(current)
            current, current_bytes = [], 0
        current.append(tensor)
        current_bytes += tensor.size_bytes
    return shards + [current] if current else shards


def write_parent(directory, shape, vocab, dtype, max_shard_bytes, secondary, sparse):
    """One model directory: shards, index and config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    source = Source(dtype, secondary)
    tensors = []
    for name, extents in tensor_shapes(shape, vocab):
        tensor = Tensor(name, dtype, extents, None)
        tensor.payload = payload(source, name, tensor.numel, sparse)
        tensors.append(tensor)
    shards = split(tensors, max_shard_bytes)
    count, weight_map = len(shards), {}
    for number, shard in enumerate(shards, 1):
        name = "pytorch_model.bin" if count == 1 else f"pytorch_model-{number:05d}-of-{count:05d}.bin"
        write_shard(directory / name, shard)
        weight_map.update({tensor.name: name for tensor in shard})
        print(f"{directory / name}: {len(shard)} tensors", flush=True)
    if count > 1:
        metadata = {"total_parameters": sum(tensor.numel for tensor in tensors),
                    "total_size": sum(tensor.size_bytes for tensor in tensors)}
        write_json(directory / "pytorch_model.bin.index.json", {"metadata": metadata, "weight_map": weight_map})
    write_json(directory / "config.json", config(shape, vocab, dtype))


def write_json(path, content):
    """JSON as transformers writes it."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def parse_size(text):
    """'5GB' -> bytes, in powers of ten."""
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    return int(text) if text.isdigit() else int(float(text[:-2]) * units[text[-2:].upper()])


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="1.1b")
    parser.add_argument("--sparse", choices=SHAPES, help="like --shape, with holes instead of weights")
    parser.add_argument("--dtype", choices=["float16", "bfloat16", "float32"], default="float16")
    parser.add_argument("--vocab", type=int, nargs=2, default=[32000, 32000], metavar=("A", "B"))
    parser.add_argument("--max-shard-size", type=parse_size, help="default 5GB; sparse 70b 10GB (15 shards)")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def main():
    """Write OUT/a and OUT/b."""
    given = arguments()
    shape_name = given.sparse or given.shape
    max_shard_bytes = given.max_shard_size or (10 if shape_name == "70b" else 5) * 10**9
    for name, vocab in zip("ab", given.vocab):
        write_parent(given.out / name, SHAPES[shape_name], vocab, given.dtype, max_shard_bytes,
                     name == "b", bool(given.sparse))


if __name__ == "__main__":
    main()

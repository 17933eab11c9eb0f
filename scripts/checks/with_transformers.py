"""transformers 4.57.3 loads each child, it speaks, and saving it again gives the same bytes."""
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from .core import DATA, check, equal_files, weight_files

SHARD_SIZES = ["5GB", "100KB", "60KB", "20KB", "1KB"]
PAIRS = {
    "llama": ("llama/primary", "llama/secondary"),
    "llama swapped": ("llama/secondary", "llama/primary"),
    "gpt2 (tied, legacy)": ("gpt2/primary", "gpt2/secondary"),
    "neox (old buffers in the secondary)": ("neox/primary", "neox/secondary"),
}
PROMPT = "The following"


@check()
def child_loads_and_generates(context):
    """from_pretrained, tokenizer, generate, finite logits; buffers in the primary must not hinder."""
    for label, parents in {**PAIRS, "neox swapped (old buffers in the child)": ("neox/secondary", "neox/primary")}.items():
        child = context.merge(DATA / parents[0], DATA / parents[1])
        tokenizer = AutoTokenizer.from_pretrained(child)
        model, report = AutoModelForCausalLM.from_pretrained(child, dtype="auto", output_loading_info=True)
        unexpected = [name for name in report["unexpected_keys"] if "attention." not in name]
        context.expect(not report["missing_keys"] and not report["mismatched_keys"] and not unexpected,
                       f"{label}: every tensor loads", f"missing {report['missing_keys']}, unexpected {unexpected}")
        rows = model.get_input_embeddings().weight.shape[0]
        context.expect(rows == model.config.vocab_size and len(tokenizer) <= rows, f"{label}: vocabulary",
                       f"{len(tokenizer)} tokens, {rows} rows, vocab_size {model.config.vocab_size}")
        speak(context, label, model, tokenizer)


def speak(context, label, model, tokenizer):
    """Greedy text and the logits behind it."""
    inputs = tokenizer(PROMPT, return_tensors="pt", add_special_tokens=False, return_token_type_ids=False)
    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=24, do_sample=False, pad_token_id=2)
        every_token = torch.arange(model.config.vocab_size)[None, :]
        logits = torch.cat([model(input_ids=every_token[:, start:start + 32]).logits[0]
                            for start in range(0, model.config.vocab_size, 32)])
    text = tokenizer.decode(out[0])
    context.expect(len(out[0]) > inputs["input_ids"].shape[1] and text.strip() != PROMPT, f"{label}: generates", repr(text))
    context.expect(bool(logits.isfinite().all()), f"{label}: all logits finite", f"{tuple(logits.shape)}")


@check()
def saved_again_by_transformers_compares_equal(context):
    """What docs/usage.md promises, for one file and for many."""
    for label, parents in PAIRS.items():
        for size in SHARD_SIZES:
            child = context.merge(DATA / parents[0], DATA / parents[1], "--max-shard-size", size)
            again = context.fresh("child")
            model = AutoModelForCausalLM.from_pretrained(child, dtype="auto")
            model.save_pretrained(again, safe_serialization=False, max_shard_size=size)
            difference = equal_files(child, again)
            context.expect(not difference, f"{label} at {size}: cmp", difference or f"{len(weight_files(child))} files")


@check()
def other_dtypes_saved_again_compare_equal(context):
    """--dtype, with torch_dtype in config.json following."""
    for label in ("llama", "gpt2 (tied, legacy)", "neox (old buffers in the secondary)"):
        for dtype in ("float32", "bfloat16", "float16"):
            primary, secondary = PAIRS[label]
            child = context.merge(DATA / primary, DATA / secondary, "--dtype", dtype, "--max-shard-size", "60KB")
            again = context.fresh("child")
            model = AutoModelForCausalLM.from_pretrained(child, dtype="auto")
            context.expect(str(model.dtype) == f"torch.{dtype}", f"{label} as {dtype}: config's dtype", str(model.dtype))
            model.save_pretrained(again, safe_serialization=False, max_shard_size="60KB")
            difference = equal_files(child, again)
            context.expect(not difference, f"{label} as {dtype}: cmp", difference)


@check()
def tied_head_stays_tied(context):
    """One storage under two names in the child, as in the parents."""
    child = context.merge(DATA / "gpt2/primary", DATA / "gpt2/secondary")
    tensors = torch.load(child / "pytorch_model.bin", weights_only=True)
    head, embedding = tensors["lm_head.weight"], tensors["transformer.wte.weight"]
    context.expect(head.data_ptr() == embedding.data_ptr(), "lm_head and wte share memory")

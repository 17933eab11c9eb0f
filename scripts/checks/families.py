"""Families of transformers 4.57.3: of each two tiny random parents with vocabularies of 200 and 208, merged both ways round.

The child loads with no missing, unexpected or mismatched key, saving it again gives the same bytes, a matrix of it is
what numpy makes of the parents, and the order of the parents' tensors is the model's at several sizes of shards.
"""
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from itertools import zip_longest

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from .core import Context, check, equal_files

SHARDS = "60KB"
OTHER_SHARDS = ["1KB", "4KB", "16KB"]
ROWS = (200, 208)
HALF, SINGLE = torch.float16, torch.float32

# Sizes under the names that most configs have, and those of the GPT-2 kind and of encoder-decoders.
LLAMA = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MANY = {name: size for name, size in LLAMA.items() if name != "num_key_value_heads"}
MOE = {**LLAMA, "moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}
GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2}
BERT = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 64, "pad_token_id": 0}
BART = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
        "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "max_position_embeddings": 64, "pad_token_id": 1, "bos_token_id": 0,
        "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": None}
T5 = {"d_model": 64, "d_kv": 8, "d_ff": 96, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4,
      "pad_token_id": 0, "decoder_start_token_id": 0}

DECODERS = {
    "llama": LLAMA, "mistral": LLAMA, "qwen2": LLAMA, "qwen3": {**LLAMA, "head_dim": 8}, "gemma": {**LLAMA, "head_dim": 8},
    "gemma2": {**LLAMA, "head_dim": 8}, "gemma3_text": {**LLAMA, "head_dim": 8}, "phi3": LLAMA, "starcoder2": LLAMA,
    "phi": LLAMA, "cohere": LLAMA, "cohere2": LLAMA, "olmo": LLAMA, "olmo2": LLAMA, "olmo3": LLAMA, "granite": LLAMA,
    "stablelm": LLAMA, "nemotron": LLAMA, "smollm3": LLAMA, "seed_oss": {**LLAMA, "head_dim": 8},
    "glm": {**LLAMA, "head_dim": 8}, "glm4": {**LLAMA, "head_dim": 8}, "helium": {**LLAMA, "head_dim": 8},
    "ernie4_5": {**LLAMA, "head_dim": 8}, "exaone4": LLAMA, "arcee": LLAMA, "apertus": LLAMA,
    "persimmon": MANY, "gpt_neox": MANY, "gpt_neox_japanese": {**MANY, "intermediate_multiple_size": 2},
    "mixtral": {**LLAMA, "num_local_experts": 4}, "qwen2_moe": {**MOE, "shared_expert_intermediate_size": 24},
    "qwen3_moe": MOE, "olmoe": MOE, "phimoe": {**LLAMA, "num_local_experts": 4}, "granitemoe": {**LLAMA, "num_local_experts": 4},
    "gpt_oss": {**LLAMA, "num_local_experts": 4, "head_dim": 8},
    "deepseek_v2": {**MANY, "moe_intermediate_size": 24, "n_routed_experts": 4, "num_experts_per_tok": 2, "kv_lora_rank": 8,
                    "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "n_shared_experts": 1,
                    "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1},
    "deepseek_v3": {**MANY, "moe_intermediate_size": 24, "n_routed_experts": 4, "num_experts_per_tok": 2, "kv_lora_rank": 8,
                    "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "n_shared_experts": 1,
                    "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1},
    **dict.fromkeys(["aria_text", "bamba", "bitnet", "diffllama", "doge", "ernie4_5_moe", "falcon_h1", "flex_olmo",
                     "glm4_moe", "granitemoeshared", "hunyuan_v1_dense", "hunyuan_v1_moe", "jamba", "jetmoe", "llama4_text",
                     "minimax", "vaultgemma", "xlstm"],
                    {**MOE, "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4, "moe_k": 2}),
    "bert-generation": BERT, "gpt2": GPT2, "gpt_bigcode": GPT2, "gptj": {**GPT2, "rotary_dim": 4}, "codegen": {**GPT2, "rotary_dim": 4},
    "openai-gpt": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "ctrl": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "dff": 96},
    "gpt_neo": {"hidden_size": 64, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]],
                "max_position_embeddings": 64, "intermediate_size": 96, "bos_token_id": 1, "eos_token_id": 2},
    "bloom": {"hidden_size": 64, "n_layer": 2, "n_head": 4}, "mpt": {"d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 64},
    "falcon": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    "opt": {"hidden_size": 64, "ffn_dim": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "word_embed_proj_dim": 64,
            "max_position_embeddings": 64, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2},
    "xglm": {"d_model": 64, "ffn_dim": 96, "num_layers": 2, "attention_heads": 4, "max_position_embeddings": 64},
    "biogpt": {**MANY, "pad_token_id": 1}, "mamba": {"hidden_size": 64, "state_size": 4, "num_hidden_layers": 2},
    "falcon_mamba": {"hidden_size": 64, "state_size": 4, "num_hidden_layers": 2},
    "mamba2": {"hidden_size": 64, "state_size": 4, "num_hidden_layers": 2, "num_heads": 16, "head_dim": 8, "n_groups": 1},
    "recurrent_gemma": {**LLAMA, "lru_width": 64, "block_types": ["recurrent", "attention"]},
    "lfm2": {**LLAMA, "full_attn_idxs": [1], "layer_types": ["conv", "full_attention"]},
    "modernbert-decoder": {**BERT, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
}
ENCODERS = {
    **dict.fromkeys(["data2vec-text", "ernie", "mra", "roformer", "xlm-roberta-xl", "xmod", "yoso"], BERT),
    "bert": BERT, "roberta": BERT, "xlm-roberta": BERT, "camembert": BERT, "roberta-prelayernorm": BERT, "mpnet": BERT,
    "electra": {**BERT, "embedding_size": 16}, "albert": {**BERT, "embedding_size": 16}, "big_bird": {**BERT, "attention_type": "original_full"},
    "distilbert": {"dim": 64, "hidden_dim": 96, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64},
    "deberta": {**BERT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 1024},
    "deberta-v2": {**BERT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 256,
                   "max_relative_positions": 1024, "norm_rel_ebd": "layer_norm", "share_att_key": True, "conv_kernel_size": 3},
    "modernbert": {**BERT, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
    "megatron-bert": BERT, "mobilebert": {**BERT, "embedding_size": 16, "intra_bottleneck_size": 16, "num_hidden_layers": 1},
    "convbert": {**BERT, "embedding_size": 16, "conv_kernel_size": 3}, "squeezebert": {**BERT, "embedding_size": 64},
    "longformer": {**BERT, "attention_window": [8, 8]}, "esm": {**BERT, "mask_token_id": 3, "position_embedding_type": "rotary"},
    "fnet": BERT, "nystromformer": BERT, "rembert": {**BERT, "input_embedding_size": 16, "output_embedding_size": 24},
    "xlm": {"emb_dim": 64, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64},
    "flaubert": {"emb_dim": 64, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64},
}
ENCODER_DECODERS = {
    "t5": T5, "mt5": {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, "umt5": T5, "longt5": T5,
    "switch_transformers": {**T5, "num_experts": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1},
    "bart": BART, "mbart": BART, "pegasus": BART, "marian": BART, "m2m_100": BART, "blenderbot": BART,
    "blenderbot-small": BART, "plbart": BART, "pegasus_x": BART,
    "bigbird_pegasus": {**BART, "attention_type": "original_full"},
    "led": {**BART, "attention_window": 8, "max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 64},
    "prophetnet": {"hidden_size": 64, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "num_encoder_layers": 2,
                   "num_decoder_layers": 2, "num_encoder_attention_heads": 4, "num_decoder_attention_heads": 4,
                   "max_position_embeddings": 64},
}
# Left out, of all families that have a language model's head in transformers 4.57.3:
#   rwkv: transformers fills time_decay and time_first anew after it has loaded them;
#   code_llama, gpt-sw3, ministral: another family's classes under their own name;
#   encoder-decoder, musicgen, musicgen_melody: two models of other families in one;
#   models of images, pages, tables or sound: blip, emu3, fuyu, gemma3, gemma3n, git, got_ocr2, granite_speech, layoutlm, llama4,
#     mllama, moshi, perceiver, phi4_multimodal, qwen2_audio, seamless_m4t, seamless_m4t_v2, speech_to_text_2, tapas, trocr,
#     voxtral, wav2vec2, whisper;
#   parts of millions of elements that no key of the config makes small in one step: blt, cpmant, dbrx, fsmt, gptsan-japanese,
#     longcat_flash, luke, mvp, nllb-moe, qwen3_next, roc_bert, t5gemma;
#   a config that says more of each layer than the tables above: dots1, funnel, gemma3n_text, granitemoehybrid, reformer, zamba,
#     zamba2;
#   ibert (made for integers), qdqbert (needs another package), and the withdrawn mega, nezha, open-llama, transfo-xl,
#     xlm-prophetnet.
AS_CAUSAL_LM = {"xlnet": {"d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 96}}
KINDS = [(AutoModelForCausalLM, {**DECODERS, **AS_CAUSAL_LM}), (AutoModelForMaskedLM, ENCODERS),
         (AutoModelForSeq2SeqLM, ENCODER_DECODERS)]
FAMILIES = {family: (kind, sizes) for kind, families in KINDS for family, sizes in families.items()}
# Families of which transformers keeps some tensors in another dtype than the model's when it loads them: they are made
# in the dtype that it leaves as it is.
DTYPES = {
    "apertus": torch.bfloat16,  # act_fn.* always in bfloat16
    **dict.fromkeys(["t5", "mt5", "umt5", "switch_transformers"], SINGLE),  # wo
    "gpt_oss": SINGLE,  # the norms
    **dict.fromkeys(["ernie4_5_moe", "glm4_moe"], SINGLE),  # e_score_correction_bias
    "hunyuan_v1_moe": SINGLE,  # mlp.gate.wg
    **dict.fromkeys(["mamba", "falcon_mamba"], SINGLE),  # A_log
    "xlnet": SINGLE,  # the attention's matrices, made without a dtype
    "deberta": SINGLE,  # q_bias and v_bias, made with one
    "esm": SINGLE,  # rotary_embeddings.inv_freq, a buffer made in float32
}
SEEDS = {200: 31, 208: 32}


def random_model(family, rows):
    """A model of that many rows; all that it computes with is noise, so that no tensor equals the other parent's."""
    kind, sizes = FAMILIES[family]
    torch.manual_seed(SEEDS[rows])
    model = kind.from_config(AutoConfig.for_model(family, vocab_size=rows, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
        for name, buffer in model.named_buffers():
            if name == "final_logits_bias":
                buffer.normal_(std=0.1)
    return model.to(DTYPES.get(family, HALF))


def saved(model, directory, shards=SHARDS):
    """The model in a directory."""
    model.save_pretrained(directory, safe_serialization=False, max_shard_size=shards)
    return directory


def problems_of_child(context, family, parents, models):
    """What is wrong with one child, in words."""
    child = context.merge(*parents, "--max-shard-size", SHARDS)
    model, report = FAMILIES[family][0].from_pretrained(child, dtype="auto", output_loading_info=True)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[key]:
            yield f"{key} {sorted(report[key])[:3]}"
    difference = equal_files(child, saved(model, context.fresh("child")))
    if difference:
        yield f"cmp: {difference}"
    yield from off_values(model, *models)


def problems_of_whole_parents(context, parents, models):
    """Whether parents of one file each, which have no index, give another child than those in shards.

    The index counts parameters that a model leaves out on saving (Marian's positions); no one file tells of those.
    """
    if models[0]._keys_to_ignore_on_save:
        return
    whole = [saved(model, context.fresh("whole"), "5GB") for model in models]
    children = [context.merge(*pair, "--max-shard-size", SHARDS) for pair in (parents, whole)]
    difference = equal_files(*children)
    if difference:
        yield f"parents of one file: {difference}"


def off_values(child, primary, secondary):
    """One square-or-not matrix of equal shape in both, against numpy in float64."""
    theirs, made_anew = secondary.state_dict(), primary._keys_to_ignore_on_save or ()
    for name, a in primary.state_dict().items():
        b = theirs[name]
        if name not in made_anew and a.is_floating_point() and a.ndim == 2 and a.shape == b.shape:
            want, have = slerp(a, b), child.state_dict()[name].double().numpy()
            if not np.allclose(have, want, rtol=torch.finfo(a.dtype).eps, atol=1e-6):
                yield f"values of {name}: off by {np.abs(have - want).max():.2g}"
            return
    yield "no matrix of one shape in both"


def slerp(a, b):
    """Halfway between two tensors, along the arc."""
    a, b = a.double().numpy(), b.double().numpy()
    theta = np.arccos(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b))
    return (a + b) * np.sin(theta / 2) / np.sin(theta)


def problems_of_order(context, model):
    """Sizes of shards from which the order of the model's tensors is not found again."""
    for shards in (SHARDS, *OTHER_SHARDS):
        path = saved(model, context.fresh("parent"), shards)
        order = [tensor["name"] for tensor in context.inspect(path)]
        wanted = [name for name in model.state_dict() if name not in (model._keys_to_ignore_on_save or ())]
        wrong = [pair for pair in zip_longest(order, wanted) if pair[0] != pair[1]]
        if wrong:
            yield f"order at {shards}: {len(wrong)} out of place, {wrong[0][0]} where {wrong[0][1]} stands"


def problems_of_family(family, binary, scratch):
    """What is wrong with a family, in words; run in a process of its own."""
    scratch.mkdir()
    context = Context(binary, scratch)
    paths = [context.fresh(f"{family}-{rows}") for rows in ROWS]
    try:
        models = [random_model(family, rows) for rows in ROWS]
        for model, path in zip(models, paths):
            saved(model, path)
        return [*problems_of_child(context, family, paths, models),
                *problems_of_child(context, family, paths[::-1], models[::-1]),
                *problems_of_whole_parents(context, paths, models),
                *problems_of_order(context, models[0])]
    except Exception as failure:  # one family must not hide the others
        return [f"{type(failure).__name__}: {failure}"]
    finally:
        shutil.rmtree(scratch)


@check()
def families_of_transformers(context):
    """One line a family: the child of each order of the parents, and the order of their tensors."""
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as pool:
        found = {family: pool.submit(problems_of_family, family, context.binary, context.scratch / family)
                 for family in FAMILIES}
        for family, wrong in found.items():
            context.expect(not wrong.result(), family, "; ".join(wrong.result()))

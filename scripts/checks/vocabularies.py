"""Vocabularies by word: real tokenizers trained on different texts, small fine-tunes, and every row worked out by words."""
import json
from functools import cache

import numpy as np
import torch
from fixtures import texts
from fixtures.numbers import round_to, to_float64
from fixtures.state_dicts import Array, load
from reference_merge import Options, compare, edge_rows, merge, special_tokens

from .core import check

MODES = ["gradient", "bridge", "inherit", "mean", "zero"]
WORDS = 700
ADDED = {"primary": ["[PAD]", "<|tool|>"], "secondary": ["<|im_start|>", "[PAD]", "<|im_end|>"]}
ROW_TENSORS = ("model.embed_tokens.weight", "lm_head.weight")


@cache
def text_of(side):
    """The text that a parent's tokenizer was trained on."""
    return texts.documentation() if side == "primary" else texts.sources() + "\nStraße, naïve, ça: été — “quoted” …\n" * 50


def lines_of_both():
    """1,000 lines with words of both texts."""
    both = [line for side in ADDED for line in text_of(side).splitlines() if line.strip()]
    return both[:500] + both[-500:]


def bpe(side):
    """A byte-level BPE of the tokenizers library."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=WORDS, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([text_of(side)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
                                   clean_up_tokenization_spaces=False)


def wordpiece(side):
    """A WordPiece of the tokenizers library, as BERT has it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=WORDS, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    tokenizer.train_from_iterator([text_of(side)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", bos_token="[CLS]", eos_token="[SEP]")


def sentencepiece(context, side, kind):
    """A model of sentencepiece's trainer: as Llama's tokenizer (bpe) or T5's (unigram)."""
    import sentencepiece as spm
    from transformers import LlamaTokenizerFast, T5TokenizerFast

    directory = context.fresh(f"spm-{kind}-{side}")
    directory.mkdir(parents=True)
    (directory / "text").write_text(text_of(side))
    spm.SentencePieceTrainer.train(input=str(directory / "text"), model_prefix=str(directory / "m"), vocab_size=WORDS,
                                   model_type=kind, byte_fallback=kind == "bpe", character_coverage=1.0,
                                   normalization_rule_name="identity", remove_extra_whitespaces=False,
                                   minloglevel=2, max_sentence_length=100000, num_threads=1)
    maker = LlamaTokenizerFast if kind == "bpe" else T5TokenizerFast
    more = {} if kind == "bpe" else {"extra_ids": 0, "pad_token": "<unk>"}
    return maker(vocab_file=str(directory / "m.model"), **more)


def model(context, label, tokenizer, side, seed, padding=0, tied=False, added=ADDED):
    """A tiny Llama with this tokenizer and the side's added tokens, saved as .bin."""
    from transformers import AddedToken, LlamaConfig, LlamaForCausalLM

    tokenizer.add_tokens([AddedToken(word, special=True) for word in added[side]])
    torch.manual_seed(seed)
    config = LlamaConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
                         vocab_size=len(tokenizer) + padding, tie_word_embeddings=tied, torch_dtype=torch.float16)
    made = LlamaForCausalLM(config).half()
    with torch.no_grad():
        for tensor in made.parameters():
            tensor += torch.randn_like(tensor) * 0.05
    directory = context.fresh(label)
    made.save_pretrained(directory, safe_serialization=False)
    tokenizer.save_pretrained(directory)
    return directory


def words_of(directory):
    """Word -> row, as transformers has it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory).get_vocab()


def rows_by_word(parents, counts, union):
    """[(primary's row, secondary's row)] of the child, None where one lacks it; and the child's words. By the rule of
    docs/usage.md, from transformers' vocabularies."""
    ours, theirs = (words_of(parent) for parent in parents)
    ours = {word: row for word, row in ours.items() if row < counts[0]}
    theirs = {word: row for word, row in theirs.items() if row < counts[1]}
    named = {row: word for word, row in ours.items()}
    named_there = set(theirs.values())
    special = special_tokens(parents[0])
    rows = []
    for row in range(counts[0]):
        unnamed = row if row not in named_there and row < counts[1] else None
        rows.append((row, theirs.get(named[row]) if row in named else unnamed))
    words = dict(ours)
    free = [row for row in range(counts[0]) if row not in named and row not in special]
    for word, there in sorted(theirs.items(), key=lambda item: item[1]) if union else []:
        if word in ours:
            continue
        if free:
            words[word] = free.pop(0)
            rows[words[word]] = (None, there)
        else:
            words[word] = len(rows)
            rows.append((None, there))
    return rows, words


def by_rows(array, sources, other, other_sources, mode, special):
    """An Array of the child's rows: the parent's own, and those that it lacks by `mode`."""
    own, others = (to_float64(part.raw, part.dtype).reshape(part.shape) for part in (array, other))
    lacked = [place for place, source in enumerate(sources) if source is None]
    count = len(lacked)
    last, first = edge_rows(len(own), special[0])
    made = np.zeros((len(sources),) + own.shape[1:])
    for place, source in enumerate(sources):
        if source is not None:
            made[place] = own[source]
    for number, place in enumerate(lacked, 1):
        if mode in ("gradient", "bridge"):
            end = own[first] if mode == "gradient" else others[edge_rows(len(others), special[1])[0]]
            made[place] = ((count + 1 - number) * own[last] + number * end) / (count + 1)
        elif mode == "inherit":
            made[place] = others[other_sources[place]]
        elif mode == "mean":
            made[place] = own.mean(axis=0)
    return Array(array.dtype, made.shape, round_to(made.reshape(-1), array.dtype))


def expected(parents, mode, union):
    """The child worked out by words, and its words."""
    states = [load(parent) for parent in parents]
    counts = [state[ROW_TENSORS[0]].shape[0] for state in states]
    rows, words = rows_by_word(parents, counts, union)
    sources = list(zip(*rows))
    special = [special_tokens(parent) for parent in parents]
    mapped = [dict(state) for state in states]
    for name in ROW_TENSORS:
        if name not in states[0]:
            continue
        a, b = states[0][name], states[1][name]
        mapped[0][name] = by_rows(a, sources[0], b, sources[1], mode, special)
        mapped[1][name] = by_rows(b, sources[1], a, sources[0], mode, special[::-1])
    return merge(*mapped, Options(0.4)), words


def compare_by_word(context, label, parents, modes=MODES, kinds=("union", "primary")):
    """Merge by word in every mode and compare every row; the union's last child."""
    child = None
    for kind in kinds:
        for mode in modes:
            made = context.merge(*parents, "-t", 0.4, "--vocab", kind, "--extend", mode)
            wanted, words = expected(parents, mode, kind == "union")
            result = compare(load(made), wanted)
            context.expect(result.ok, f"{label}, {kind}, {mode}", result)
            child = made if kind == "union" else child
            if mode != modes[0]:
                continue
            rows = json.loads((made / "config.json").read_text())["vocab_size"]
            have = words_of(made)
            wrong = [word for word, row in words.items() if have.get(word) != row]
            context.expect(not wrong and len(have) == len(words) and rows == wanted[ROW_TENSORS[0]].shape[0],
                           f"{label}, {kind}: every word has its row", f"{len(words)} words, wrong: {wrong[:3]}")
    return child


def read_and_write(context, label, child, parents, exact=True):
    """The child's tokenizer takes 1,000 lines apart and puts them together (but for spaces, where its kind loses
    them), and knows every character."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(child)
    ids = [tokenizer(line, add_special_tokens=False)["input_ids"] for line in lines_of_both()]
    back = [tokenizer.decode(line, clean_up_tokenization_spaces=False) for line in ids]
    plain = (lambda line: line) if exact else (lambda line: "".join(line.split()))
    same = sum(plain(a) == plain(b) for a, b in zip(back, lines_of_both()))
    unknown = sum(line.count(tokenizer.unk_token_id) for line in ids)
    context.expect(same == len(back) and unknown == 0, f"{label}: lines read and written", f"{same} of "
                   f"{len(back)} the same, {unknown} unknown tokens")
    for side, parent in zip(ADDED, parents):
        for word in ADDED[side]:
            tokens = tokenizer(f"a {word} b", add_special_tokens=False)["input_ids"]
            context.expect(tokenizer.convert_tokens_to_ids(word) in tokens, f"{label}: {word} is one token", side)


@check()
def vocabularies_of_byte_level_bpe(context):
    """Trained on two texts; with padding and a tied head too."""
    for label, padding, tied in (("bpe", 0, False), ("bpe padded and tied", 40, True)):
        parents = [model(context, f"{side}-{padding}", bpe(side), side, seed, padding, tied)
                   for seed, side in enumerate(ADDED)]
        read_and_write(context, label, compare_by_word(context, label, parents), parents)


@check()
def vocabularies_of_sentencepiece(context):
    """BPE with bytes and unigram, by sentencepiece's own trainer."""
    for kind in ("bpe", "unigram"):
        parents = [model(context, f"{kind}-{side}", sentencepiece(context, side, kind), side, seed)
                   for seed, side in enumerate(ADDED)]
        child = compare_by_word(context, kind, parents, MODES[:2])
        read_and_write(context, kind, child, parents, exact=kind == "bpe")


@check()
def vocabularies_of_wordpiece(context):
    """Words with ##."""
    parents = [model(context, f"wordpiece-{side}", wordpiece(side), side, seed) for seed, side in enumerate(ADDED)]
    child = compare_by_word(context, "wordpiece", parents, MODES[:1])
    read_and_write(context, "wordpiece", child, parents, exact=False)


@check()
def clashing_added_tokens(context):
    """Two fine-tunes of one base: refused with examples; rows, union and primary go on; and the other way round."""
    parents = [model(context, f"clash-{side}", bpe("primary"), side, seed) for seed, side in enumerate(ADDED)]
    for pair in (parents, parents[::-1]):
        refused = context.run("merge", *pair, "-o", context.fresh())
        hints = all(word in refused.stderr for word in ("--vocab union", "--vocab primary", "--vocab rows", "[PAD]"))
        context.expect(refused.code == 65 and hints, "refused with examples and the ways on", refused.stderr.splitlines()[0])
        read_and_write(context, "clash", compare_by_word(context, "clash", pair), pair)
    plan = json.loads(context.run("plan", *parents, "--vocab", "union", "--json").stdout)["plan"]
    context.expect(plan["words"]["relation"] == "different" and plan["by_word"]["added"] == 2, "the plan's JSON", plan["words"])
    found = context.run("find", *parents)
    context.expect("1 pair with one row for different words" in found.stdout, "find names the pair", found.stdout[-200:])


@check()
def one_extends_the_other(context):
    """Nothing is refused, and by word is as by row where each word is in its row."""
    added = {"primary": [], "secondary": ADDED["secondary"]}
    parents = [model(context, f"more-{side}", bpe("primary"), side, seed, added=added) for seed, side in enumerate(ADDED)]
    for pair in (parents, parents[::-1]):
        plain, union = (context.merge(*pair, *words) for words in ((), ("--vocab", "union")))
        context.expect(load(plain) == load(union), "union is the extension", "")
        compare_by_word(context, "one extends the other", pair, MODES[:1])


@check()
def python_tokenizers_and_their_files(context):
    """A Llama's tokenizer.model alone against its tokenizer.json; added tokens go into tokenizer_config.json."""
    from transformers import AutoTokenizer, LlamaTokenizer

    fast = model(context, "fast", sentencepiece(context, "primary", "bpe"), "secondary", 1)
    plain = model(context, "plain", sentencepiece(context, "primary", "bpe"), "primary", 2)
    for name in ("tokenizer.json",):
        (plain / name).unlink()
    child = context.merge(plain, fast, "--vocab", "union")
    slow = LlamaTokenizer.from_pretrained(child)
    wanted = {**LlamaTokenizer.from_pretrained(plain).get_vocab(), "<|im_start|>": WORDS + 2, "<|im_end|>": WORDS + 3}
    wrong = [word for word, row in wanted.items() if slow.convert_tokens_to_ids(word) != row]
    context.expect(not wrong, "tokenizer.model and added tokens", wrong[:3])
    ids = AutoTokenizer.from_pretrained(child)("a<|im_start|>b")["input_ids"]
    context.expect(WORDS + 2 in ids, "found in a text", ids)

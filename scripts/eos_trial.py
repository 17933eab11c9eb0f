#!/usr/bin/env python3
"""Does a child still end its texts? Trains two tiny GPT-2 whose last row is the end-of-text token, the second with
eight tokens added behind it, merges them with the real binary at t = 0.1 and prints the probability of the end of
text where it belongs: in both parents, in the child, and in the child of parents that don't tell their special
tokens, so that the row of the end of text is an edge row. Exit status 1 if the child is more than 0.01 away from
the parent that it is 0.9 of. Needs .venv-conformance (conformance.sh makes it); a minute on one core.

    .venv-conformance/bin/python scripts/eos_trial.py [--binary PATH] [--seeds N]
"""
import argparse
import copy
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
ADDED = 8
CONTEXT = 48
T = 0.1
ALLOWED = 0.01
SPECIAL_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")


class Letters:
    """Texts as letters; the end of text is the last id."""

    def __init__(self, texts):
        self.letters = sorted(set("".join(texts)))
        self.end = len(self.letters)
        self.ids = {letter: position for position, letter in enumerate(self.letters)}

    def __call__(self, texts, added=()):
        """One row of ids, every text behind its end of text; `added` maps words to ids beyond the end."""
        row = []
        for text in texts:
            row.append(self.end)
            for word in text.split(" "):
                row += [added[word]] if word in added else [self.ids[letter] for letter in word]
                row.append(self.ids[" "])
            row.pop()
        return row + [self.end]


def sentences(text):
    """Sentences of middling length: each is a text, its full stop is where the end belongs."""
    found = (" ".join(part.split()) + "." for part in re.split(r"[.:]\s", text))
    return [sentence for sentence in dict.fromkeys(found) if 12 <= len(sentence) <= 44 and sentence.count(".") == 1]


def models(seed):
    """(letters, held-out texts, primary, secondary): fine-tunes of one base on halves of the sentences."""
    import torch
    from fixtures import texts
    from fixtures.train import train
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    all_texts = sentences(texts.documentation() + " " + texts.docstrings())
    letters = Letters(all_texts)
    held_out = all_texts[::10]
    rest = [text for text in all_texts if text not in held_out]
    first, second = rest[::2], rest[1::2]
    config = GPT2Config(vocab_size=letters.end + 1, n_positions=CONTEXT, n_embd=48, n_layer=2, n_head=4,
                        bos_token_id=letters.end, eos_token_id=letters.end, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    base = GPT2LMHeadModel(config)
    options = {"length": CONTEXT, "learning_rate": 4e-3}
    train(base, torch.tensor(letters(first + second)), 700, **options, seed=seed)
    primary, secondary = copy.deepcopy(base), copy.deepcopy(base)
    train(primary, torch.tensor(letters(first)), 150, **options | {"learning_rate": 1e-3}, seed=seed + 1)
    words = sorted({word for text in second for word in text.split(" ")}, key=lambda word: (-len(word), word))
    frequent = [word for word in words if sum(word in text.split(" ") for text in second) > 8][:ADDED]
    added = {word: letters.end + 1 + place for place, word in enumerate(frequent)}
    secondary.resize_token_embeddings(letters.end + 1 + ADDED, mean_resizing=False)
    train(secondary, torch.tensor(letters(second, added)), 150, **options | {"learning_rate": 1e-3}, seed=seed + 2)
    return letters, held_out, primary, secondary


def end_of_text(model, letters, held_out):
    """(mean probability of the end of text behind each text, of the added rows there)."""
    import torch

    ends, added = [], []
    with torch.no_grad():
        for text in held_out:
            ids = torch.tensor([letters([text])[:-1]][-CONTEXT:])
            probabilities = model(input_ids=ids).logits[0, -1].softmax(-1)
            ends.append(probabilities[letters.end].item())
            added.append(probabilities[letters.end + 1:].sum().item())
    return sum(ends) / len(ends), sum(added) / len(added)


def save(model, directory):
    """As people have it: GPT-2's file, config.json and generation_config.json."""
    model.half().save_pretrained(directory, safe_serialization=False)
    model.float()
    return directory


def without_ids(directory, out):
    """A copy of a model whose configs name no special token."""
    shutil.copytree(directory, out)
    for file in ("config.json", "generation_config.json"):
        config = json.loads((out / file).read_text())
        (out / file).write_text(json.dumps({key: value for key, value in config.items() if key not in SPECIAL_KEYS}))
    return out


def trial(binary, seed, scratch):
    """One pair of models, merged every way; the largest distance that counts."""
    from transformers import GPT2LMHeadModel

    letters, held_out, *trained = models(seed)
    parents = [save(model, scratch / name) for model, name in zip(trained, ("short", "long"))]
    silent = [without_ids(parent, scratch / f"{parent.name}-silent") for parent in parents]
    of_parents = [end_of_text(GPT2LMHeadModel.from_pretrained(parent), letters, held_out) for parent in parents]
    print(f"seed {seed}: row {letters.end} of {letters.end + 1} is the end of text, {ADDED} rows added, "
          f"{len(held_out)} texts")
    worst = 0.0
    for mode in ("gradient", "bridge"):
        for order, label in (((0, 1), "shorter first"), ((1, 0), "longer first")):
            parent = of_parents[order[0]][0]
            for pair, edge in ((silent, "the end of text is the edge"), (parents, "the row before it is the edge")):
                out = scratch / f"child-{mode}-{order[0]}-{pair is parents}"
                subprocess.run([binary, "merge", pair[order[0]], pair[order[1]], "-o", out, "-t", str(T), "--extend",
                                mode, "--quiet", "--no-fsync"], check=True)
                end, added = end_of_text(GPT2LMHeadModel.from_pretrained(out), letters, held_out)
                print(f"  {mode}, {label}, {edge}: parent {parent:.4f}, child {end:.4f} ({end - parent:+.4f}), "
                      f"added rows {added:.4f}", flush=True)
                if pair is parents:
                    worst = max(worst, abs(end - parent))
    return worst


def main():
    """Run the trials; exit 1 if a child has lost its end of text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=REPOSITORY / "target/release/llm-slerp-merge")
    parser.add_argument("--seeds", type=int, default=1, help="pairs of models (default: 1)")
    given = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    worst = 0.0
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory(prefix="eos-") as scratch:
            worst = max(worst, trial(given.binary.resolve(), seed, Path(scratch)))
    print(f"{'PASS' if worst <= ALLOWED else 'FAIL'}: at most {worst:.4f} from the parent, {ALLOWED} allowed")
    raise SystemExit(0 if worst <= ALLOWED else 1)


if __name__ == "__main__":
    main()

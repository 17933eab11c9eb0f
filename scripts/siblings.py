#!/usr/bin/env python3
"""Write src/checkpoint/tensors/model_order/siblings.txt: in which order the modules of transformers' families have their parts.

    siblings.py > src/checkpoint/tensors/model_order/siblings.txt
    siblings.py --orders > tests/data/orders.txt            some families' names in order, for the tests
"""
import os
import sys
import warnings
from collections import Counter

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
warnings.filterwarnings("ignore")

from checks.families import FAMILIES, ROWS, random_model  # noqa: E402


SOME = ["llama", "qwen2", "gpt2", "bert", "t5", "mixtral", "falcon", "opt", "bart", "roberta", "gpt_neox", "mamba"]


def parts_of_modules(names):
    """Per module, its tensors and parts in order; of lists of modules, nothing."""
    modules = {}
    for name in names:
        words = name.split(".")
        for level, word in enumerate(words):
            if not word.isdigit():
                modules.setdefault(tuple(words[:level]), {})[word] = None
    return [tuple(words) for words in modules.values() if len(words) > 1]


def main():
    """Print each list, those of most families first; where families differ in the order of the same parts, those of the
    fewer are only for models that have a part of their name (`@longformer`)."""
    lists, tops = Counter(), {}
    for family in FAMILIES:
        names = list(random_model(family, ROWS[0]).state_dict())
        found = set(parts_of_modules(names))
        # A family that has the same parts in two orders tells nothing.
        found = {words for words in found
                 if words == ("weight", "bias") or sum(set(words) == set(other) for other in found) == 1}
        lists.update(found)
        for words in found:
            tops.setdefault(words, {}).setdefault(names[0].split(".")[0])
    orders = {}
    for words in sorted(lists, key=lambda words: (-lists[words], words)):
        same_parts = orders.setdefault(frozenset(words), [])
        if not same_parts:
            print(*words)
        for top in tops[words] if same_parts else ():
            if not any(top in tops[other] for other in same_parts):
                print(f"@{top}", *words)
        same_parts.append(words)


if __name__ == "__main__":
    if sys.argv[1:] == ["--orders"]:
        for some in SOME:
            print(some, *random_model(some, ROWS[0]).state_dict())
    else:
        main()

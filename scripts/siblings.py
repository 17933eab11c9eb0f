#!/usr/bin/env python3
"""Write src/checkpoint/model_order/siblings.txt: in which order the modules of transformers' families have their parts.

    siblings.py > src/checkpoint/model_order/siblings.txt
"""
import os
import warnings
from collections import Counter

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
warnings.filterwarnings("ignore")

from checks.families import FAMILIES, ROWS, random_model  # noqa: E402


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
    """Print each list, those of most families first."""
    lists = Counter()
    for family in FAMILIES:
        lists.update(set(parts_of_modules(random_model(family, ROWS[0]).state_dict())))
    for words in sorted(lists, key=lambda words: (-lists[words], words)):
        print(*words)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Write src/merge/ties/tied_keys.txt: which names of tied tensors each class of transformers declares as copies, which
`save_pretrained` leaves out of safetensors; and untied_types.txt: model types that have no tied head unless config.json
says so.

    tied_keys.py > src/merge/ties/tied_keys.txt
    tied_keys.py --untied > src/merge/ties/untied_types.txt

A line of the first is the names, a bar, and the classes that declare them. Classes without any, and those whose names are no
plain text, are left out.
"""
import ast
import re
import sys
from collections import defaultdict
from pathlib import Path

import transformers

KEYS = "_tied_weights_keys"
PLAIN = re.compile(r"[\w.]+")


def declared(node):
    """The class's own list; `None` where it has none, or one that is not written out."""
    for statement in node.body:
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == KEYS:
            try:
                return ast.literal_eval(statement.value)
            except ValueError:
                return None
    return None


def untied(node):
    """The model type of a config's class whose `tie_word_embeddings` is false by default."""
    model_type, default = None, None
    for statement in node.body:
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == "model_type":
            model_type = getattr(statement.value, "value", None)
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            arguments = statement.args
            for argument, value in zip(reversed(arguments.args), reversed(arguments.defaults)):
                if argument.arg == "tie_word_embeddings":
                    default = getattr(value, "value", None)
    return model_type if default is False else None


def classes_of(pattern):
    """Every class of transformers' models in files of this name."""
    for path in sorted((Path(transformers.__file__).parent / "models").glob(pattern)):
        yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef))


def main():
    """Print each list of names with its classes, those of most classes first."""
    own, bases = {}, {}
    for node in classes_of("*/modeling_*.py"):
        own[node.name] = declared(node)
        bases[node.name] = [base.id for base in node.bases if isinstance(base, ast.Name)]

    def keys(name):
        if own.get(name) is not None:
            return own[name]
        inherited = (keys(base) for base in bases.get(name, ()))
        return next((found for found in inherited if found is not None), None)

    classes = defaultdict(list)
    for name in own:
        found = keys(name)
        if found and not name.startswith(("TF", "Flax")) and all(PLAIN.fullmatch(key) for key in found):
            classes[" ".join(sorted(found))].append(name)
    for names in sorted(classes, key=lambda names: (-len(classes[names]), names)):
        print(names, "|", *sorted(classes[names]))


if __name__ == "__main__":
    if sys.argv[1:] == ["--untied"]:
        print("\n".join(sorted(filter(None, map(untied, classes_of("*/configuration_*.py"))))))
    else:
        main()

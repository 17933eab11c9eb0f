"""Run by the Python that has mergekit 0.1.4: merge each recipe that is named, as mergekit does.

    run_mergekit.py RECIPE OUT [RECIPE OUT ...]
"""
import sys

import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import MergeOptions, run_merge

for recipe, out in zip(sys.argv[1::2], sys.argv[2::2]):
    with open(recipe, encoding="utf-8") as text:
        configuration = MergeConfiguration.model_validate(yaml.safe_load(text))
    run_merge(configuration, out, options=MergeOptions(write_model_card=False, quiet=True))

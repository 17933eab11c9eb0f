"""The parts of bench.py: pairs of parents, what is run on them, how a run is measured, what is written down."""

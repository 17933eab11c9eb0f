"""Runs the fault tests. Python 3.7 or newer, no packages; see scripts/faults.sh."""
import argparse
import sys
import tempfile
from pathlib import Path

from bench import Bench, Failed
from full import full
from kill import kill
from pairs import make_pair
from power import power
from stop import stop

PAIR = Path(__file__).resolve().parents[2] / "tests" / "data" / "llama"
SUITES = {"stop": stop, "full": full, "power": power, "kill": kill}


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tool", required=True)
    parser.add_argument("which", choices=[*SUITES, "all"])
    arguments = parser.parse_args()
    for name, suite in SUITES.items():
        if arguments.which in (name, "all"):
            with tempfile.TemporaryDirectory(prefix="faults-") as folder:
                parents, place = [PAIR / "primary", PAIR / "secondary"], Path(folder, "place")
                place.mkdir()
                # No length is a multiple of a block: the ends go through the page cache.
                large = make_pair(Path(folder, "large"), 5, 300, 513)
                try:
                    suite(Bench(arguments.tool, parents, large, place))
                except Failed as failed:
                    sys.exit(f"error: {name}: {failed}")


main()

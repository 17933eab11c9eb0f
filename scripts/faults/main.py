"""Runs the fault tests. Python 3.7 or newer, no packages; see scripts/faults.sh."""
import argparse
import sys
import tempfile
from pathlib import Path

from bench import Bench, Failed
from full import full
from kill import kill
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
            with tempfile.TemporaryDirectory(prefix="faults-") as place:
                parents = [PAIR / "primary", PAIR / "secondary"]
                try:
                    suite(Bench(arguments.tool, parents, place))
                except Failed as failed:
                    sys.exit(f"error: {name}: {failed}")


main()

"""``python -m pokebattle adopt v3 v4``: write what a search of v3 has found into params/v4.yaml."""

import argparse
import os
import sys

from pokebattle.params import known_version
from pokebattle.tuning.best_params import LATEST, find, new_file, write_version


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("version", help="the version that was tuned")
    parser.add_argument("new", help="the name of the new one")
    parser.add_argument("--tuned-from", default=LATEST, metavar="RUN", help=f"a run of tune.ipynb ({LATEST})")


def run(arguments: argparse.Namespace) -> int:
    """Write the file and say what differs; 1 when there is nothing to write, or the name is taken."""
    known_version(arguments.version)
    new_file(arguments.new)  # both are refused before the server is asked
    tuned = find(arguments.tuned_from, arguments.version)
    file = write_version(arguments.new, tuned, arguments.version)
    values = ", ".join(f"{name} {value}" for name, value in tuned.values.items())
    sys.stdout.write(f"{os.path.relpath(file)}: {values}\nfrom {tuned.link}\n")
    return 0

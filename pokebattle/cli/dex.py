"""``python -m pokebattle dex``: extract the game tables from the battle engine."""

import argparse
import sys

from pokebattle.engine import installation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments: none."""


def run(arguments: argparse.Namespace) -> int:
    """Install the engine if need be, write the tables, say how many rows each has."""
    rows = installation.write_tables()
    for table, count in rows.items():
        sys.stdout.write(f"{table}: {count} rows\n")
    return 0

"""The command line: one module a verb, each with ``add_arguments(parser)`` and ``run(arguments) -> exit code``."""

import argparse
import importlib
from collections.abc import Sequence

VERBS = {
    "server": "start, stop or show the local MLflow server",
    "report": "show an executed notebook's result and the address of its run",
    "dex": "extract the game tables from the battle engine",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m pokebattle")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="{" + ",".join(VERBS) + "}")
    for verb, purpose in VERBS.items():
        module = importlib.import_module(f"pokebattle.cli.{verb}")
        module.add_arguments(verbs.add_parser(verb, help=purpose, description=purpose))
    arguments = parser.parse_args(argv)
    return int(importlib.import_module(f"pokebattle.cli.{arguments.verb}").run(arguments))

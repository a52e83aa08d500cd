"""The command line: one module a verb, each with ``add_arguments(parser)`` and ``run(arguments) -> exit code``."""

import argparse
import importlib
import sys
from collections.abc import Sequence

VERBS = {
    "server": "start, stop or show the local MLflow server",
    "shared": "start, stop or show the team's server: PostgreSQL, and MLflow with accounts on it",
    "accounts": "who may log in to the team's server, and as what",
    "backup": "write the team's server, databases and artifacts, to one file",
    "restore": "put the team's server back to what such a file holds",
    "doctor": "is tracking on, where do runs go, what waits, what is wrong, how to mend it",
    "sync": "deliver executions that wait for their server",
    "runs": "show this machine's recent executions",
    "train": "train a version by train.ipynb, for people who think in scripts",
    "retrain": "train, gate and promote a version without anybody watching, and write a report",
    "report": "show an executed notebook's result and the address of its run",
    "reference": "execute notebooks and store the outputs that nbval compares with",
    "adopt": "write what a search found into a new version",
    "promote": "judge a registered version and move it to Staging or Production",
    "rollback": "return Production to the version before",
    "history": "show who moved which version where, when and why, and what does not agree",
    "gate": "judge a registered version by the gates of promotion",
    "reproduce": "execute a run again from its own record and compare the figures",
    "dex": "extract the game tables from the battle engine",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code; only that verb's module is imported."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m pokebattle")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="{" + ",".join(VERBS) + "}")
    parsers = {verb: verbs.add_parser(verb, help=purpose, description=purpose) for verb, purpose in VERBS.items()}
    if not words or words[0] not in VERBS:
        parser.parse_args(words)
    module = importlib.import_module(f"pokebattle.cli.{words[0]}")
    module.add_arguments(parsers[words[0]])
    return int(module.run(parser.parse_args(words)))

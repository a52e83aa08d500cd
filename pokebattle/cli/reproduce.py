"""``python -m pokebattle reproduce RUN_ID``: execute a run again from its own record and compare the figures."""

import argparse
import sys

from nbtrack.executions import run_address
from pokebattle.registry import promotion, reproduction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("run", metavar="RUN_ID", help="a run that a tracked notebook made")


def run(arguments: argparse.Namespace) -> int:
    """Write the verdict, every difference and what drifted; 1 when the figures are others or cannot be had."""
    with promotion.connected("its runs") as rest:
        found = reproduction.reproduce(arguments.run, rest)
        experiment = rest.call("GET", "runs/get", run_id=found.again)["run"]["info"] if found.again else {}
    say = sys.stdout.write
    say(f"{found.verdict}: {found.compared} metrics compared\n")
    for line in found.differences:
        say(f"differs  {line}\n")
    for line in found.drift:
        say(f"drifted  {line}\n")
    if found.again:
        say(f"run: {run_address({'uri': rest.uri, **experiment})}\n")
    return 0 if found.same else 1

"""``python -m pokebattle promote 3 --to Staging``: judge a registered version and move it to the next stage."""

import argparse
import sys

from pokebattle.registry import promotion
from pokebattle.registry.gate_report import Gate
from pokebattle.registry.stages import NAME, PRODUCTION, STAGING, parse_version


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("version", help="the registered version: 3 or battle_winner/3")
    parser.add_argument("--to", required=True, choices=[STAGING, PRODUCTION], help="Staging comes before Production")
    parser.add_argument("--why", default="", metavar="TEXT", help="the reason, which stands in the history")
    parser.add_argument("--dry-run", action="store_true", help="judge it, say what would happen, and change nothing")
    parser.add_argument("--model-name", default=NAME, help=f"the registered model ({NAME})")


def run(arguments: argparse.Namespace) -> int:
    """Write a line for each gate and what was done; 1 when the version is refused or cannot be moved."""
    name, number = parse_version(arguments.version, arguments.model_name)
    outcome = promotion.promote(name, number, arguments.to, arguments.why, arguments.dry_run, tell=say)
    notes = [f"mended: {line}" for line in outcome.mended]
    sys.stdout.write("\n".join([*notes, outcome.text]) + "\n")
    return 0 if outcome.report is None or outcome.report.passed else 1


def say(gate: Gate) -> None:
    """Write one gate's line."""
    sys.stdout.write(f"{gate}\n")
    sys.stdout.flush()

"""``python -m pokebattle rollback --why TEXT``: return Production to the version before."""

import argparse
import sys

from pokebattle.registry import promotion
from pokebattle.registry.stages import NAME


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--why", required=True, metavar="TEXT", help="the reason, which stands in the history")
    parser.add_argument("--dry-run", action="store_true", help="say what would happen, and change nothing")
    parser.add_argument("--model-name", default=NAME, help=f"the registered model ({NAME})")


def run(arguments: argparse.Namespace) -> int:
    """Write what was done; 1 when there is no version before, or its files are not what they were."""
    outcome = promotion.rollback(arguments.model_name, arguments.why, arguments.dry_run)
    notes = [f"mended: {line}" for line in outcome.mended]
    sys.stdout.write("\n".join([*notes, outcome.text]) + "\n")
    return 0

"""``python -m pokebattle gate 3``: judge a registered version, and write the report to its page."""

import argparse
import sys

from pokebattle.cli.promote import say
from pokebattle.registry import gates, promotion
from pokebattle.registry.stages import NAME, parse_version


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("version", help="the registered version: 3 or battle_winner/3")
    parser.add_argument("--model-name", default=NAME, help=f"the registered model ({NAME})")


def run(arguments: argparse.Namespace) -> int:
    """Write a line for each gate and the verdict; 1 when the version is refused."""
    name, number = parse_version(arguments.version, arguments.model_name)
    with promotion.connected(name) as rest:
        report = gates.judge(rest, number, name, tell=say)
    for line in (*report.notes, report.battles, f"{report.name} version {report.version}: {report.verdict}"):
        sys.stdout.write(f"{line}\n" if line else "")
    return 0 if report.passed else 1

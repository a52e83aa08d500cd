"""``python -m pokebattle predict venusaur blastoise``: who wins, according to a registered model."""

import argparse
import sys

from pokebattle.prediction import POLICIES, predict
from pokebattle.registry import promotion
from pokebattle.registry.loading import load_version
from pokebattle.registry.stages import NAME


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("species_a", help="a name or id, such as Charizard-Mega-X or charizardmegax")
    parser.add_argument("species_b", help="its opponent")
    parser.add_argument("--policy", choices=POLICIES, default=POLICIES[0], help="how both choose moves (best_move)")
    parser.add_argument(
        "--model",
        default=NAME,
        metavar="NAME[/VERSION]",
        help=f"a registered model ({NAME}) or version; without a version, the one in Production, else in Staging, else "
        "the latest",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write who wins how often, with which moves, and which model says so."""
    with promotion.connected(arguments.model) as rest:
        loaded = load_version(arguments.model, rest)
    found = predict(loaded.model, arguments.species_a, arguments.species_b, arguments.policy)
    say = sys.stdout.write
    say(f"{found.species_a} beats {found.species_b} in {found.win_probability:.1%} of battles\n")
    if found.move_a:
        say(f"{found.species_a} uses {found.move_a}, {found.species_b} uses {found.move_b}; both are at level 50\n")
    error, version = loaded.calibration_error, loaded.version
    quality = "" if error is None else f"; its calibration error on the test part is {error:.1%}"
    say(f"model: {loaded.name} version {version.number}, stage {version.stage}{quality}\n")
    return 0

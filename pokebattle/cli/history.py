"""``python -m pokebattle history``: who moved which version where, when and why, and what does not agree."""

import argparse
import sys

from pokebattle.registry import promotion, stages
from pokebattle.registry.stages import NAME


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--model-name", default=NAME, help=f"the registered model ({NAME})")


def run(arguments: argparse.Namespace) -> int:
    """Write a line a move, oldest first, the stages, and where stage, alias and tag disagree; 1 when they do."""
    name = arguments.model_name
    with promotion.connected(name) as rest:
        model = stages.read(rest, name)
    say = sys.stdout.write
    for event in model.events():
        back = " (rollback)" if event["kind"] == "rollback" else ""
        move = f"version {event['version']}: {event['from']} → {event['to']}{back}"
        say(f"{event['when'][:19].replace('T', ' ')}  {move:<46}  {event['by']}: {event['why']}\n")
    for stage in reversed(stages.ALIASES):
        number = model.holder(stage)
        say(f"{stage}: {'none' if number is None else f'version {number}'}\n")
    disagreements = model.disagreements()
    for line in disagreements:
        say(f"DISAGREES {line}\n")
    if disagreements:
        say("the next promote or rollback mends it: the stage is what counts\n")
    return 1 if disagreements else 0

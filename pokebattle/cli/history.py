"""``python -m pokebattle history``: every move of a version, and contradictions between stage, alias and tag."""

import click

from pokebattle.cli.promote import model_name_option
from pokebattle.registry import promotion, stages


@click.command("history")
@model_name_option
def command(model_name: str) -> int:
    """Show who moved which version where, when and why, and inconsistencies.

    The oldest move comes first. The exit code is 1 if stage, alias and tag of a version disagree.
    """
    with promotion.connected(model_name) as rest:
        model = stages.read(rest, model_name)
    for event in model.events():
        back = " (rollback)" if event["kind"] == "rollback" else ""
        move = f"version {event['version']}: {event['from']} → {event['to']}{back}"
        click.echo(f"{event['when'][:19].replace('T', ' ')}  {move:<46}  {event['by']}: {event['why']}")
    for stage in reversed(stages.ALIASES):
        number = model.holder(stage)
        click.echo(f"{stage}: {'none' if number is None else f'version {number}'}")
    disagreements = model.disagreements()
    for line in disagreements:
        click.echo(f"DISAGREES {line}")
    if disagreements:
        click.echo("the next promote or rollback repairs this: the stage is authoritative")
    return 1 if disagreements else 0

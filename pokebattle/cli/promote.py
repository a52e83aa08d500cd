"""``python -m pokebattle promote 3 --to Staging``: judge a registered version and move it to the next stage."""

import click

from nbtrack.cli import Choice
from pokebattle.registry import promotion
from pokebattle.registry.gate_report import Gate
from pokebattle.registry.stages import NAME, PRODUCTION, STAGING, parse_version

model_name_option = click.option(
    "--model-name", default=NAME, show_default=True, metavar="NAME", help="The registered model."
)


@click.command("promote")
@click.argument("version", help="The registered version: 3 or battle_winner/3.")
@click.option("--to", type=Choice([STAGING, PRODUCTION]), required=True, help="Staging comes before Production.")
@click.option("--why", default="", metavar="TEXT", help="The reason, for the history.")
@click.option("--dry-run", is_flag=True, help="Judge it and say what would happen; no stage changes.")
@model_name_option
def command(version: str, to: str, why: str, dry_run: bool, model_name: str) -> int:
    """Judge a registered version and move it to Staging or Production.

    The exit code is 1 if the version is refused or cannot be moved.
    """
    name, number = parse_version(version, model_name)
    outcome = promotion.promote(name, number, to, why, dry_run, on_gate=say)
    notes = [f"repaired: {line}" for line in outcome.repaired]
    click.echo("\n".join([*notes, outcome.text]))
    return 0 if outcome.report is None or outcome.report.passed else 1


def say(gate: Gate) -> None:
    """Write one gate's line.

    Parameters
    ----------
    gate : Gate
    """
    click.echo(gate)

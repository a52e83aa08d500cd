"""``python -m pokebattle rollback --why TEXT``: return Production to the version before."""

import click

from pokebattle.cli.promote import model_name_option
from pokebattle.registry import promotion


@click.command("rollback")
@click.option("--why", required=True, metavar="TEXT", help="The reason, for the history.")
@click.option("--dry-run", is_flag=True, help="Say what would happen, and change nothing.")
@model_name_option
def command(why: str, dry_run: bool, model_name: str) -> int:
    """Return Production to its previous version.

    The exit code is 1 if there is no version before, or its files have changed.
    """
    outcome = promotion.rollback(model_name, why, dry_run)
    notes = [f"repaired: {line}" for line in outcome.repaired]
    click.echo("\n".join([*notes, outcome.text]))
    return 0

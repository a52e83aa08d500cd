"""``python -m pokebattle dex``: extract the game tables from the battle engine."""

import click

from pokebattle.engine import installation


@click.command("dex")
def command() -> int:
    """Extract the game tables from the battle engine.

    The engine is installed first if it is missing.
    """
    rows = installation.write_tables()
    for table, count in rows.items():
        click.echo(f"{table}: {count} rows")
    return 0

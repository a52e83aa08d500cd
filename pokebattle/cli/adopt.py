"""``python -m pokebattle adopt v3 v4``: write what a search of v3 has found into params/v4.yaml."""

import os

import click

from pokebattle.params import known_version
from pokebattle.tuning.best_params import LATEST, find, new_file, write_version


@click.command("adopt")
@click.argument("version", help="The version that was tuned.")
@click.argument("new", help="The name of the new version.")
@click.option("--tuned-from", default=LATEST, show_default=True, metavar="RUN_ID", help="A run of tune.ipynb.")
def command(version: str, new: str, tuned_from: str) -> int:
    """Write what a search found into a new version."""
    known_version(version)
    new_file(new)  # both are refused before the server is asked
    tuned = find(tuned_from, version)
    file = write_version(new, tuned, version)
    values = ", ".join(f"{name} {value}" for name, value in tuned.values.items())
    click.echo(f"{os.path.relpath(file)}: {values}\nfrom {tuned.link}")
    return 0

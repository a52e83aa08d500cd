"""``python -m nbtrack backup``: the team's server in one file."""

import sys
import time
from pathlib import Path

import click

from nbtrack.paths import project
from nbtrack.team import local_services
from nbtrack.team.backup import backup, write


@click.command("backup")
@click.option("--to", type=Path, metavar="FILE", help="The file, or - for stdout.  [default: a new one in backups/]")
def command(to: Path | None) -> int:
    """Save the team's server to one file.

    The file contains both databases, and the artifacts if they lie in a folder.
    """
    named = to or project() / "backups" / time.strftime("pokebattle-%Y%m%dT%H%M%SZ.tar", time.gmtime())
    streams = str(named) == "-"
    with local_services.place() as place:
        manifest = write(place, sys.stdout.buffer) if streams else backup(place, named.absolute())
    count = len(manifest["files"]) - 2
    what = f"{count} artifacts" if place.folder else f"no artifacts: they are in {place.artifacts}, back them up there"
    click.echo(f"{named} holds both databases and {what}", err=streams)
    return 0

"""``python -m nbtrack restore FILE``: restore the team's server from a backup."""

import contextlib
import sys
from pathlib import Path

import click

from nbtrack.team import local_services
from nbtrack.team.backup import restore
from nbtrack.team.settings import SettingsError


@click.command("restore")
@click.argument("file", type=Path, help="What backup wrote, or - for stdin.")
@click.option("--overwrite", is_flag=True, help="Replace a server that has runs.")
def command(file: Path, overwrite: bool) -> int:
    """Restore the team's server from a backup.

    The server must be stopped. If the backup cannot be restored, nothing changes.
    """
    try:
        if local_services.is_running():
            raise SettingsError("the server runs: `make shared-stop`, restore, `make shared`")
        name = str(file)
        with local_services.place() as place, contextlib.ExitStack() as files:
            stream = sys.stdin.buffer if name == "-" else files.enter_context(file.open("rb"))
            manifest = restore(place, name, stream, overwrite)
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from error
    click.echo(f"restored what {file} held at {manifest['made']}; `make shared` serves it")
    return 0

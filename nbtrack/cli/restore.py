"""``python -m nbtrack restore FILE``: the shared server as a backup holds it."""

import argparse
import contextlib
import sys
from pathlib import Path

from nbtrack.team import stack
from nbtrack.team.backup import restore
from nbtrack.team.settings import SettingsError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("file", type=Path, help="what backup wrote, - for the standard input")
    parser.add_argument("--overwrite", action="store_true", help="replace a server that has runs")


def run(arguments: argparse.Namespace) -> int:
    """Put everything back; 1 when it cannot be, and then nothing has changed."""
    try:
        if stack.is_running():
            raise SettingsError("the server runs: `make shared-stop`, restore, `make shared`")
        name = str(arguments.file)
        with stack.place() as place, contextlib.ExitStack() as files:
            stream = sys.stdin.buffer if name == "-" else files.enter_context(arguments.file.open("rb"))
            manifest = restore(place, name, stream, arguments.overwrite)
    except OSError as error:
        sys.stderr.write(f"Error: {arguments.file}: {error.strerror}\n")
        return 1
    sys.stdout.write(f"restored what {arguments.file} held at {manifest['made']}; `make shared` serves it\n")
    return 0

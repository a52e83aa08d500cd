"""``python -m nbtrack backup``: the shared server's databases and artifacts into one file."""

import argparse
import sys
import time
from pathlib import Path

from nbtrack.paths import project
from nbtrack.team import stack
from nbtrack.team.backup import backup, write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--to", type=Path, help="the file (default: one in backups/), - for the standard output")


def run(arguments: argparse.Namespace) -> int:
    """Write the file and say what it holds; 1 when it cannot be."""
    named = arguments.to or project() / "backups" / time.strftime("pokebattle-%Y%m%dT%H%M%SZ.tar", time.gmtime())
    streams = str(named) == "-"
    with stack.place() as place:
        manifest = write(place, sys.stdout.buffer) if streams else backup(place, named.absolute())
    count = len(manifest["files"]) - 2
    what = f"{count} artifacts" if place.folder else f"no artifacts: they are in {place.artifacts}, which keeps its own"
    (sys.stderr if streams else sys.stdout).write(f"{named} holds both databases and {what}\n")
    return 0

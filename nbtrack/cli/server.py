"""``python -m nbtrack server start|stop|status``."""

import argparse
import sys

from nbtrack import server, spool
from nbtrack.settings import tracking_uri


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("action", choices=["start", "stop", "status"])
    parser.add_argument("--own", action="store_true", help="start one although another program's answers")
    parser.add_argument("--background", action="store_true", help="do not wait until the server answers")


def run(arguments: argparse.Namespace) -> int:
    """Do it; 1 when the server cannot be started or does not answer."""
    say = sys.stdout.write
    if arguments.action == "stop":
        say(f"stopped the MLflow server at {uri}\n" if (uri := server.stop()) else "no MLflow server to stop\n")
        return 0
    if arguments.action == "status":
        there = server.answers(tracking_uri())
        say(f"{tracking_uri()}: {'an MLflow server answers' if there else 'no MLflow server answers'}\n")
        return 0 if there else 1
    uri, remarks = server.start(not arguments.background, arguments.own)
    spool.call_drainer()
    for remark in remarks:
        say(f"{remark}\n")
    say(f"MLflow {'comes up' if arguments.background and not server.answers(uri) else 'serves'} at {uri}\n")
    return 0

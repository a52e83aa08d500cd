"""``python -m pokebattle train --version v3 --mlflow-tracking``: run train.ipynb from the command line."""

import argparse
import logging
import os
import sys
import traceback
from pathlib import Path

from papermill.cli import papermill
from papermill.exceptions import PapermillExecutionError

from nbtrack import server
from pokebattle.cli import report
from pokebattle.params import known_version
from pokebattle.paths import project

MODEL_TYPES = ["xgboost"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--model-type", choices=MODEL_TYPES, default=MODEL_TYPES[0], help="what is fitted (xgboost)")
    parser.add_argument("--version", default="v3", help="a file in params/ (v3)")
    parser.add_argument(
        "--mlflow-tracking", action="store_true", help="make it a run; else its model is saved under build/models"
    )
    parser.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        dest="parameters",
        metavar=("NAME", "VALUE"),
        help="any setting of params/*.yaml or of train.ipynb, as papermill takes it",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("out.ipynb"), metavar="FILE", help="the executed notebook (out.ipynb)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Execute the notebook, then write its result and its run's address; papermill's exit code."""
    known_version(arguments.version)  # refused before a server is started
    os.environ["POKEBATTLE_TRACKING"] = "on" if arguments.mlflow_tracking else "off"
    if arguments.mlflow_tracking and not os.environ.get("MLFLOW_TRACKING_URI"):
        try:
            server.start(wait=False)
        except server.ServerStartError as error:  # the run waits for a server, as any notebook's does
            sys.stderr.write(f"Error: {error}\n")
    code = execute(arguments.output, [["version", arguments.version], *arguments.parameters])
    if code == 0:
        report.run(argparse.Namespace(notebook=arguments.output))
    return code


def execute(output: Path, parameters: list[list[str]]) -> int:
    """Execute train.ipynb as ``papermill`` does, in this process; return its exit code."""
    words = [str(project() / "notebooks" / "train.ipynb"), str(output)]
    root = logging.getLogger()
    level, handlers = root.level, [*root.handlers]
    try:
        papermill([*words, *(word for pair in parameters for word in ("-p", *pair))], prog_name="papermill")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except PapermillExecutionError:  # an error in a cell
        traceback.print_exc()
        return 1
    finally:  # papermill makes every library log to the terminal
        root.setLevel(level)
        root.handlers[:] = handlers
    return 0

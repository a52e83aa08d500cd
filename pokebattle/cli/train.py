"""``python -m pokebattle train --version v3 --mlflow-tracking``: run train.ipynb from the command line."""

import logging
import os
import traceback
from collections.abc import Iterable
from pathlib import Path

import click
from papermill.cli import papermill
from papermill.exceptions import PapermillExecutionError

from nbtrack import server
from nbtrack.cli import Choice
from pokebattle.cli import report
from pokebattle.params import known_version
from pokebattle.paths import project

MODEL_TYPES = ["xgboost"]

parameters_option = click.option(
    "-p",
    "parameters",
    nargs=2,
    multiple=True,
    metavar="NAME VALUE",
    help="Any setting of params/*.yaml or of train.ipynb, as papermill takes it; may be repeated.",
)


@click.command("train")
@click.option(
    "--model-type", type=Choice(MODEL_TYPES), default=MODEL_TYPES[0], show_default=True, help="What is fitted."
)
@click.option("--version", default="v3", show_default=True, metavar="VERSION", help="A file in params/.")
@click.option("--mlflow-tracking", is_flag=True, help="Make it a run; else the model is saved under build/models.")
@parameters_option
@click.option(
    "--output", type=Path, default="out.ipynb", show_default=True, metavar="FILE", help="The executed notebook."
)
def command(
    model_type: str, version: str, mlflow_tracking: bool, parameters: tuple[tuple[str, str], ...], output: Path
) -> int:
    """Train a version from the command line.

    This is the same execution as with papermill, and the exit code is papermill's.
    """
    known_version(version)  # refused before a server is started
    os.environ["POKEBATTLE_TRACKING"] = "on" if mlflow_tracking else "off"
    if mlflow_tracking and not os.environ.get("MLFLOW_TRACKING_URI"):
        try:
            server.start(wait=False)
        except server.ServerStartError as error:  # the run waits for a server, as any notebook's does
            click.echo(f"Error: {error}", err=True)
    code = execute(output, [("version", version), *parameters])
    if code == 0:
        report.show(output)
    return code


def execute(output: Path, parameters: Iterable[tuple[str, str]]) -> int:
    """Execute train.ipynb as ``papermill`` does, in this process; return its exit code.

    Parameters
    ----------
    output : Path
    parameters : iterable of (str, str)
        Names and values, as papermill's ``-p`` takes them.
    """
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

"""``python -m pokebattle report out.ipynb``: an executed notebook's result and the address of its run."""

import json
from pathlib import Path
from typing import Any

import click

from nbtrack.executions import closed_run, run_address
from pokebattle.errors import UserError


@click.command("report")
@click.argument("notebook", type=Path, help="A notebook that papermill executed.")
def command(notebook: Path) -> int:
    """Show the result of an executed notebook and the address of its run.

    The result is the output of the cells with the tag "result". The exit code is 1 if the run is not on the server.
    """
    return show(notebook)


def show(path: Path) -> int:
    """Write the outputs of the cells tagged ``result``, wait until the run is closed, write its address.

    Parameters
    ----------
    path : Path

    Returns
    -------
    int
        The exit code: 1 if the run is not on the server.

    Raises
    ------
    UserError
        If there is no notebook.
    """
    try:
        notebook = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected an executed notebook, got {error}") from error
    for cell in notebook["cells"]:
        if "result" in cell["metadata"].get("tags", []):
            click.echo("".join(_texts(cell)), nl=False)
    settings = notebook["metadata"].get("pokebattle")
    if settings is None:  # not tracked: the notebook is as papermill wrote it
        click.echo("run: a notebook without `pokebattle` metadata names none; see `python -m pokebattle runs`")
        return 0
    if (execution := settings.get("execution")) is None:
        click.echo("run: none, this execution was not tracked")
        return 0
    record = closed_run(execution)
    if "status" not in record:
        reason = record.get("away") or "the server has not answered yet"
        click.echo(f"run: not on the server ({reason})")
        return 1
    click.echo(f"run: {run_address(record)} ({record['status']})")
    return 0


def _texts(cell: dict[str, Any]) -> list[str]:
    texts = []
    for output in cell.get("outputs", []):
        text = output.get("text") or output.get("data", {}).get("text/plain", "")
        texts.append("".join(text).rstrip("\n") + "\n")
    return texts

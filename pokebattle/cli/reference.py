"""``python -m pokebattle reference notebook.ipynb ...``: execute notebooks and store what nbval compares with."""

import os
import tempfile
from pathlib import Path

import click
import nbformat
from nbclient import NotebookClient


@click.command("reference")
@click.argument(
    "notebooks", type=Path, nargs=-1, required=True, metavar="NOTEBOOK...", help="Each is executed in its folder."
)
def command(notebooks: tuple[Path, ...]) -> int:
    """Execute notebooks and store the outputs that nbval compares with.

    A notebook with a failing cell is not stored.
    """
    for path in notebooks:
        click.echo(path)
        notebook = nbformat.read(path, as_version=4)
        client = NotebookClient(notebook, record_timing=False, resources={"metadata": {"path": str(path.parent)}})
        with tempfile.TemporaryDirectory() as studies:  # so that a search begins a new study
            client.execute(env=os.environ | {"POKEBATTLE_STORAGE": f"sqlite:///{studies}/studies.db"})
        nbformat.write(without_noise(notebook), path)
    return 0


def without_noise(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what differs from one execution to the next and is not compared: stderr, timing, the Python in use."""
    notebook.metadata.language_info = {"name": "python"}
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook

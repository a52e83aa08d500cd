"""``python -m pokebattle reference notebook.ipynb ...``: execute notebooks and store what nbval compares with."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("notebooks", type=Path, nargs="+", metavar="notebook")


def run(arguments: argparse.Namespace) -> int:
    """Execute each notebook in its folder under its defaults and store it; a failing cell stops before storing."""
    for path in arguments.notebooks:
        sys.stdout.write(f"{path}\n")
        sys.stdout.flush()
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

"""``python -m pokebattle report out.ipynb``: an executed notebook's result and the address of its run."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from nbtrack.executions import closed_run, run_address


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("notebook", type=Path, help="a notebook that papermill executed")


def run(arguments: argparse.Namespace) -> int:
    """Write the outputs of the cells tagged ``result``, wait until the run is closed, write its address."""
    try:
        notebook = json.loads(arguments.notebook.read_text("utf-8"))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"Error: {arguments.notebook}: expected an executed notebook, got {error}\n")
        return 1
    for cell in notebook["cells"]:
        if "result" in cell["metadata"].get("tags", []):
            sys.stdout.write("".join(_texts(cell)))
    own = notebook["metadata"].get("pokebattle")
    if own is None:  # not tracked: the notebook is as papermill wrote it
        sys.stdout.write("run: a notebook without `pokebattle` metadata names none; see `python -m pokebattle runs`\n")
        return 0
    if (execution := own.get("execution")) is None:
        sys.stdout.write("run: none, this execution was not tracked\n")
        return 0
    record = closed_run(execution)
    if "status" not in record:
        reason = record.get("away") or "the server has not answered yet"
        sys.stdout.write(f"run: not on the server ({reason})\n")
        return 1
    sys.stdout.write(f"run: {run_address(record)} ({record['status']})\n")
    return 0


def _texts(cell: dict[str, Any]) -> list[str]:
    found = []
    for output in cell.get("outputs", []):
        text = output.get("text") or output.get("data", {}).get("text/plain", "")
        found.append("".join(text).rstrip("\n") + "\n")
    return found

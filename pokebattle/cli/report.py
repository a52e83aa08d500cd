"""``python -m pokebattle report out.ipynb``: an executed notebook's result and the address of its run."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from pokebattle.tracking.journal import execution_folder, read_json, run_address
from pokebattle.tracking.settings import server_is_starting

PATIENCE = 200.0  # seconds to wait for the sender while the server starts
AWAY = 10.0  # seconds to wait for a server that does not answer


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
    record = closed_run(execution_folder(execution))
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


def closed_run(folder: Path) -> dict[str, Any]:
    """Wait until the run of an execution's folder is closed; return what is known of it then, or when it takes long."""
    began = time.monotonic()
    while True:
        record = read_json(folder / "run.json")
        away = record.get("away") and not server_is_starting(record["uri"])
        if "status" in record or time.monotonic() - began > (AWAY if away else PATIENCE):
            return record
        time.sleep(0.1)

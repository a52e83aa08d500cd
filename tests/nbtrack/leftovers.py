"""Executions whose kernel has ended and which nobody delivers."""

import subprocess
import sys
from typing import Any

from nbtrack import processes
from nbtrack.executions import execution_folder
from nbtrack.journal import Journal
from nbtrack.sender_start import opening


def leave(name: str, *events: dict[str, Any], **start: Any) -> None:
    """Leave an execution with these events in the state folder of the environment."""
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    kernel = processes.identity(ended.pid)
    ended.communicate(b"\n")
    told = {
        "notebook": "",
        "executor": "kernel",
        "cwd": "/",
        "user": "u",
        "experiment": name,
        "run_name": name,
        "driver": None,
        "parent_execution": None,
        "parent": None,
    }
    told = {**opening(name, **told), "kernel": kernel, **start}
    journal = Journal(execution_folder(name))
    names = {"kind": "names", "experiment": told["experiment"], "run_name": told["run_name"]}
    for event in ({"kind": "start", **told}, *events, names):
        journal.append(**event)
    journal.close()

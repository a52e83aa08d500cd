"""Executions whose kernel has ended and which are not delivered."""

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
    start_event = {
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
    start_event = {**opening(name, **start_event), "kernel": kernel, **start}
    journal = Journal(execution_folder(name))
    names = {"kind": "names", "experiment": start_event["experiment"], "run_name": start_event["run_name"]}
    for event in ({"kind": "start", **start_event}, *events, names):
        journal.append(**event)
    journal.close()

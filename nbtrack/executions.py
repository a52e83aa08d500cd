"""This machine's executions: their ids, folders and runs."""

import time
import uuid
from pathlib import Path
from typing import Any

from nbtrack.files import read_json
from nbtrack.paths import state_dir
from nbtrack.settings import destination_of, server_is_starting

PATIENCE = 200.0  # seconds to wait for the sender while the server starts
AWAY = 10.0  # seconds to wait for a server that does not answer


def new_execution_id() -> str:
    """Return an id that sorts by time and is unique across machines."""
    return time.strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:12]


def executions_dir() -> Path:
    """Return the spool: the folder that contains a folder for every execution."""
    return state_dir() / "executions"


def execution_folder(execution_id: str) -> Path:
    """Return the folder of an execution, which may not exist.

    Parameters
    ----------
    execution_id : str
    """
    return executions_dir() / execution_id


def run_address(record: dict[str, Any]) -> str:
    """Return the address of a run's page; its query keeps MLflow's UI out of its GenAI mode.

    Parameters
    ----------
    record : dict
        From ``run.json``.
    """
    page = f"#/experiments/{record['experiment_id']}/runs/{record['run_id']}?workflowType=machine_learning"
    return f"{destination_of(record)}/{page}"


def closed_run(execution_id: str) -> dict[str, Any]:
    """Wait until the run of an execution is closed, or for a limited time; return the content of its ``run.json``.

    Parameters
    ----------
    execution_id : str
    """
    folder, began = execution_folder(execution_id), time.monotonic()
    while True:
        record = read_json(folder / "run.json")
        away = record.get("away") and not server_is_starting(record["uri"])
        if "status" in record or time.monotonic() - began > (AWAY if away else PATIENCE):
            return record
        time.sleep(0.1)

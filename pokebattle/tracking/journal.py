"""An execution's folder: what the kernel wrote down, what the shipper made of it.

``journal.jsonl`` holds one event a line, ``notebook.json`` the notebook as it was when the execution began,
``run.json`` the run that the shipper opened. Standard library only.
"""

import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pokebattle.tracking.settings import state_dir


def new_execution_id() -> str:
    """Return an id that sorts by time and is unique across machines."""
    return time.strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:12]


def execution_folder(execution_id: str) -> Path:
    """Return the folder of an execution; it need not exist."""
    return state_dir() / "executions" / execution_id


def write_atomically(file: Path, text: str) -> None:
    """Replace ``file`` by ``text`` so that a reader sees the old or the new content, never a part."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(file)


def read_json(file: Path) -> dict[str, Any]:
    """Return the JSON object in ``file``, or an empty one while there is none."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def run_address(record: dict[str, Any]) -> str:
    """Return the page of the run in ``run.json``; the query keeps MLflow's UI out of its GenAI mode."""
    page = f"#/experiments/{record['experiment_id']}/runs/{record['run_id']}?workflowType=machine_learning"
    return f"{record['uri']}/{page}"


class Journal:
    """Append-only writer of one execution's events, safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self._file = os.open(folder / "journal.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()

    def append(self, kind: str, **fields: Any) -> None:
        """Write one event, with its time in ms since the epoch."""
        event = {"kind": kind, "time": int(time.time() * 1000), **fields}
        line = json.dumps(event, default=str, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        with self._lock:
            while line:
                line = line[os.write(self._file, line) :]

    def close(self) -> None:
        """Close the file; appending afterwards is an error."""
        os.close(self._file)


def read_events(folder: Path, offset: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield ``(offset behind it, event)`` for every whole line from ``offset`` on."""
    try:
        with (folder / "journal.jsonl").open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                yield offset, json.loads(line)
    except FileNotFoundError:
        return

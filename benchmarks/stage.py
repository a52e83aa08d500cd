"""The environment of a benchmark: its own MLflow server and state folder, with tracking on and off."""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from processes import swept

from nbtrack import server
from nbtrack.files import read_json

FOREIGN = ("MLFLOW_", "POKEBATTLE_", "JPY_", "PYTEST_")  # variables that would change the executor or the server
ANY_PORT = "http://127.0.0.1:0"
NO_SERVER = "http://127.0.0.1:9"  # no server answers here, so no running server is reused
PATIENCE = 300.0  # seconds to wait until a run is closed


class Stage:
    """A folder, a server, and the executions that are tracked on it.

    Attributes
    ----------
    folder : Path
        For notebooks and outputs; removed at the end.
    state : Path
        The state folder of the executions, not the server's.
    on, off : dict
        Environment of a tracked and of an untracked execution.
    """

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self.state, self.uri = folder, folder / "state", uri
        self.on = _own_environment() | {"MLFLOW_TRACKING_URI": uri, "POKEBATTLE_STATE": str(self.state)}
        self.off = self.on | {"POKEBATTLE_TRACKING": "off"}
        self._closed: dict[Path, dict[str, Any]] = {}

    def open_executions(self) -> list[Path]:
        """Return the folders of the executions whose run is not closed yet."""
        for folder in (self.state / "executions").glob("*"):
            if folder not in self._closed and "status" in (record := read_json(folder / "run.json")):
                self._closed[folder] = record
        return [folder for folder in (self.state / "executions").glob("*") if folder not in self._closed]

    def closed(self) -> dict[Path, dict[str, Any]]:
        """Return the records of the closed runs by folder, in the order in which they were closed."""
        self.open_executions()
        return dict(self._closed)

    def settle(self) -> None:
        """Wait until every execution's run is closed.

        Raises
        ------
        RuntimeError
            If one is still open after five minutes.
        """
        deadline = time.monotonic() + PATIENCE
        while left := self.open_executions():
            if time.monotonic() > deadline:
                records = {folder.name: read_json(folder / "run.json") for folder in left}
                raise RuntimeError(f"not closed within {PATIENCE:.0f} s: {records}")
            time.sleep(0.02)

    def database(self) -> Path:
        """Return the server's SQLite file."""
        return next((self.folder / "server").rglob("mlflow.db"))


def _own_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Start a server on a free port with an empty store; at the end stop it and remove everything.

    Raises
    ------
    RuntimeError
        If another server answers.
    """
    with tempfile.TemporaryDirectory(prefix="pokebattle-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        home = folder / "server"
        environment = _own_environment() | {"POKEBATTLE_STATE": str(home)}
        with swept(folder), patch.dict(os.environ, environment, clear=True):
            try:
                with patch.multiple(server, DEFAULT_URI=ANY_PORT, tracking_uri=lambda: NO_SERVER):
                    uri, _ = server.start()
                if read_json(home / "server.json").get("uri") != uri:
                    raise RuntimeError(f"{uri} is not the server that was started")
                yield Stage(folder, uri)
            finally:
                server.stop()

"""Joins the cells' own ``mlflow`` calls to the execution's run.

Nothing here imports mlflow: the patches wait until a cell does. Then the execution's run is the active run of every
thread, ``mlflow.start_run()`` opens a child of it, and only the shipper ends it.
"""

import atexit
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pokebattle.tracking.execution import Execution
from pokebattle.tracking.imports import after_import
from pokebattle.tracking.notice import say
from pokebattle.tracking.settings import server_is_starting, state_dir

PATIENCE = 5.0  # seconds that the first mlflow call waits for the run's id
STARTING_PATIENCE = 120.0  # the same while the local server is coming up

_attachment: "_Attachment | None" = None


def install(current: Callable[[], Execution | None]) -> None:
    """Attach when a cell imports mlflow; ``current`` tells which execution is under way."""

    def attach(module: Any) -> None:
        global _attachment
        _attachment = _Attachment(module, current)

    after_import("mlflow.tracking.fluent", attach)


def keep_attached() -> None:
    """Make the execution's run the active one again if the cells have ended or left it."""
    if _attachment is not None:
        _attachment.renew()


def offline_database() -> Path:
    """Return the SQLite file that holds what cells log while no server answers."""
    return state_dir() / "offline" / "mlflow.db"


class _Attachment:
    def __init__(self, fluent: Any, current: Callable[[], Execution | None]) -> None:
        self.fluent, self.current = fluent, current
        self.execution = current()
        self.own_id = ""
        atexit.unregister(fluent._safe_end_run)  # it may wait for a server while the kernel is being ended
        fluent._active_run_stack.default_factory = self.stack
        fluent.start_run = self._nesting(fluent.start_run)
        fluent.end_run = self._sparing(fluent.end_run)
        self.offline = bool(self.execution and self.execution.names) and not self.record()
        if self.offline:
            say(f"what cells log with mlflow goes to {offline_database()}")
            self._set_tracking_uri(f"sqlite:///{offline_database()}")
        elif self.execution:
            self._set_tracking_uri(self.execution.uri)

    def _set_tracking_uri(self, uri: str) -> None:
        from mlflow.tracking._tracking_service.utils import set_tracking_uri  # mlflow itself is half imported

        set_tracking_uri(uri)

    def record(self) -> dict[str, Any]:
        execution = self.execution
        if execution is None:
            return {}
        return execution.run(STARTING_PATIENCE if server_is_starting(execution.uri) else PATIENCE)

    def stack(self) -> list[Any]:
        """Return a thread's first stack of active runs: the execution's run, when it has one."""
        record = {} if self.offline else self.record()
        if not record:
            return []
        self.own_id = record["run_id"]
        self.fluent._active_experiment_id = self.fluent._active_experiment_id or record["experiment_id"]
        return [self.fluent.ActiveRun(self.fluent.MlflowClient().get_run(self.own_id))]

    def renew(self) -> None:
        execution = self.current()
        if execution is not self.execution:  # the kernel has gone over to another run
            self.execution, self.own_id = execution, ""
            self.fluent._active_experiment_id = None
            self.fluent._active_run_stack.reset()

    def _owns_top(self) -> bool:
        stack = self.fluent._active_run_stack.get()
        return bool(stack) and stack[-1].info.run_id == self.own_id

    def _nesting(self, start_run: Callable[..., Any]) -> Callable[..., Any]:
        """On top of the execution's run, a run that is started is a child without being told so."""

        @functools.wraps(start_run)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.offline:
                self._prepare_offline()
            if self._owns_top():
                kwargs["nested"] = True
            return start_run(*args, **kwargs)

        return call

    def _sparing(self, end_run: Callable[..., None]) -> Callable[..., None]:
        """The execution's own run ends with the execution, not before."""

        @functools.wraps(end_run)
        def call(*args: Any, **kwargs: Any) -> None:
            if not self._owns_top():
                end_run(*args, **kwargs)

        return call

    def _prepare_offline(self) -> None:
        """Give the local database an experiment whose artifacts stay beside it."""
        if self.fluent._active_experiment_id is not None:
            return
        folder = offline_database().parent
        (folder / "artifacts").mkdir(parents=True, exist_ok=True, mode=0o700)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # would stand in a cell's output
        client, name = self.fluent.MlflowClient(), "offline"
        found = client.get_experiment_by_name(name)
        self.fluent._active_experiment_id = (
            found.experiment_id
            if found
            else client.create_experiment(name, artifact_location=(folder / "artifacts").as_uri())
        )

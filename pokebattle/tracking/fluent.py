"""Joins the cells' own ``mlflow`` calls to the execution's run.

Nothing here imports mlflow: the patches wait until a cell does. Then the execution's run is the active run of every
thread, ``mlflow.start_run()`` opens a child of it, and only the shipper ends it.
"""

import atexit
import functools
from collections.abc import Callable
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


class _Attachment:
    def __init__(self, fluent: Any, current: Callable[[], Execution | None]) -> None:
        self.fluent, self.current = fluent, current
        self.execution = current()
        self.own_id = ""
        self._plain_start, self._plain_end = fluent.start_run, fluent.end_run
        atexit.unregister(fluent._safe_end_run)  # it may wait for a server while the kernel is being ended
        fluent._active_run_stack.default_factory = self.stack
        fluent.start_run = functools.wraps(self._plain_start)(self.start_run)
        fluent.end_run = functools.wraps(self._plain_end)(self.end_run)
        if self.execution:
            fluent.set_tracking_uri(self.execution.uri)
            if self.execution.names and not self.record():
                self._keep_locally()

    def record(self) -> dict[str, Any]:
        execution = self.execution
        if execution is None:
            return {}
        return execution.run(STARTING_PATIENCE if server_is_starting(execution.uri) else PATIENCE)

    def stack(self) -> list[Any]:
        """Return a thread's first stack of active runs: the execution's run, when it has one."""
        record = self.record()
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

    def start_run(self, *args: Any, **kwargs: Any) -> Any:
        """Start a run as MLflow does; on top of the execution's run it is a child without being told so."""
        if self._owns_top():
            kwargs["nested"] = True
        return self._plain_start(*args, **kwargs)

    def end_run(self, *args: Any, **kwargs: Any) -> None:
        """End the active run, unless it is the execution's own: that one ends with the execution."""
        if not self._owns_top():
            self._plain_end(*args, **kwargs)

    def _keep_locally(self) -> None:
        """No server: what the cells log goes to a local database, without a stall."""
        folder = state_dir() / "offline"
        (folder / "artifacts").mkdir(parents=True, exist_ok=True, mode=0o700)
        self.fluent.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        client, name = self.fluent.MlflowClient(), "offline"
        found = client.get_experiment_by_name(name)
        self.fluent._active_experiment_id = (
            found.experiment_id
            if found
            else client.create_experiment(name, artifact_location=(folder / "artifacts").as_uri())
        )
        say(f"no server answers: what cells log with mlflow goes to {folder / 'mlflow.db'}")

"""Joins the cells' own ``mlflow`` calls to the execution's run.

Nothing here imports mlflow: the patches wait until a cell does. Then the execution's run is the active run of every
thread, ``mlflow.start_run()`` opens a child of it, and only the shipper ends it. Cells that turn to another server are
left alone.
"""

import atexit
import functools
from collections.abc import Callable
from typing import Any

from pokebattle.tracking.kernel import calls
from pokebattle.tracking.kernel.execution import Execution
from pokebattle.tracking.kernel.imports import after_import, replace
from pokebattle.tracking.notice import say_once


def install(current: Callable[[], Execution | None]) -> None:
    """Attach when a cell imports mlflow; ``current`` tells which execution is under way."""
    calls.install(current)

    def attach(module: Any) -> None:
        Attachment(module, current)

    after_import("mlflow.tracking.fluent", attach)


class Attachment:
    """Keeps the execution's run below whatever runs the cells open."""

    def __init__(self, fluent: Any, current: Callable[[], Execution | None]) -> None:
        from mlflow.tracking._tracking_service.utils import is_tracking_uri_set, set_tracking_uri

        self.fluent, self.current = fluent, current
        self.execution: Execution | None = None
        self.active: Any = None
        self._experiment: str | None = None
        atexit.unregister(fluent._safe_end_run)  # the shipper ends what is open, when it can
        self._stack = fluent._active_run_stack.get
        fluent._active_run_stack.get = self.stack
        replace(fluent, "start_run", self._nesting(fluent.start_run))
        replace(fluent, "end_run", self._sparing(fluent.end_run))
        if (execution := current()) and not is_tracking_uri_set():
            set_tracking_uri(execution.uri)

    def stack(self) -> list[Any]:
        """Return the thread's active runs; the execution's run is the first, where it belongs to."""
        stack: list[Any] = self._stack()
        try:
            own = self._own()
        except Exception as error:  # the cell goes on, under whatever run is active
            say_once(f"mlflow's calls are not joined to the run ({type(error).__name__}: {error})")
            return stack
        if stack and getattr(stack[0], "of_execution", None) and stack[0] is not own:
            del stack[0]
        if own is not None and (not stack or stack[0] is not own):
            stack.insert(0, own)
        return stack

    def _own(self) -> Any:
        """Return the execution's run as mlflow's active run; None while cells talk to another server."""
        from mlflow.tracking._tracking_service.utils import get_tracking_uri

        execution = self.current()
        journalled = calls.requests()
        if execution is None or journalled is None or get_tracking_uri().rstrip("/") != execution.uri:
            if self._experiment and self.fluent._active_experiment_id == self._experiment:
                self.fluent._active_experiment_id = None  # it is none of the other server's
            return None
        if execution is not self.execution:
            from mlflow.entities import Run
            from mlflow.protos.service_pb2 import Run as ProtoRun
            from mlflow.utils.proto_json_utils import parse_dict

            message = ProtoRun()
            run = execution.run()
            parse_dict(journalled.adopt(execution, run)["run"], message)
            self.active = self.fluent.ActiveRun(Run.from_proto(message))
            self.active.of_execution = execution.id
            self.fluent._active_experiment_id = self._experiment = run["experiment_id"]
            self.execution = execution
        elif self.fluent._active_experiment_id is None:  # back from another server
            self.fluent._active_experiment_id = self._experiment
        return self.active

    def _owns_top(self) -> bool:
        stack = self.fluent._active_run_stack.get()
        return bool(stack) and stack[-1] is self.active

    def _nesting(self, start_run: Callable[..., Any]) -> Callable[..., Any]:
        """On top of the execution's run, a run that is started is a child without being told so."""

        @functools.wraps(start_run)
        def call(*args: Any, **kwargs: Any) -> Any:
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

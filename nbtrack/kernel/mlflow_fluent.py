"""Make the cells' own ``mlflow`` calls use the execution's run.

Nothing here imports mlflow: the patches are applied when a cell imports it. A cell that logs without a run of its own
logs to the execution's run, where plain MLflow would begin a new run; a run that a cell starts without a parent becomes
a child of the execution's run. Everything else is as in plain MLflow. Cells that switch to another server are not
affected.
"""

import atexit
import functools
import inspect
import os
import threading
from collections.abc import Callable
from typing import Any

from nbtrack import env_vars
from nbtrack.journal import NOT_ENDED
from nbtrack.kernel import mlflow_requests
from nbtrack.kernel.execution import Execution
from nbtrack.kernel.import_hooks import after_import, replace
from nbtrack.tags import PARENT_RUN
from nbtrack.terminal import say_once

CHOSEN = (env_vars.EXPERIMENT_NAME, env_vars.EXPERIMENT_ID)
_attachment: "Attachment | None" = None


def install(current: Callable[[], Execution | None]) -> None:
    """Patch mlflow's functions when a cell imports mlflow.

    Parameters
    ----------
    current : callable
        Returns the active execution, or None.
    """
    mlflow_requests.install(current)

    def attach(module: Any) -> None:
        global _attachment
        _attachment = Attachment(module, current)

    after_import("mlflow.tracking.fluent", attach)


def attachment() -> "Attachment | None":
    """Return the object that joins mlflow's functions to the execution; None before mlflow is imported."""
    return _attachment


class Attachment:
    """Makes mlflow's functions use the execution's run.

    Parameters
    ----------
    fluent : module
        ``mlflow.tracking.fluent``.
    current : callable
        Returns the active execution, or None.
    """

    def __init__(self, fluent: Any, current: Callable[[], Execution | None]) -> None:
        from mlflow.tracking._tracking_service.utils import is_tracking_uri_set, set_tracking_uri

        self.fluent, self.current = fluent, current
        self.execution: Execution | None = None  # the execution whose run was used
        self._open: set[str] = set()  # runs that cells have started on the execution's server and not ended
        self._claims = threading.Lock()  # only one of several threads that log without a run gets the execution's run
        self._looked_up = threading.local()  # the chosen experiment, during one call of a cell
        self._stack = fluent._active_run_stack.get
        self._chosen_experiment = fluent._get_experiment_id
        self._end_run = fluent.end_run
        atexit.unregister(fluent._safe_end_run)
        atexit.register(self._end_at_exit)
        fluent._active_run_stack.get = self.stack
        replace(fluent, "_get_experiment_id", self.experiment_id)
        replace(fluent, "_get_or_start_run", self._claiming(fluent._get_or_start_run))
        replace(fluent, "start_run", self._starting(fluent.start_run))
        replace(fluent, "end_run", self._ending(fluent.end_run))
        replace(fluent, "set_experiment", self._choosing(fluent.set_experiment))
        if (execution := current()) and not is_tracking_uri_set():
            set_tracking_uri(execution.uri)

    # -- the execution's run ---------------------------------------------------------------------

    def _joined(self) -> Execution | None:
        """Return the active execution; None while cells use another server."""
        from mlflow.tracking._tracking_service.utils import get_tracking_uri

        execution = self.current()
        if execution is None or mlflow_requests.requests() is None or get_tracking_uri().rstrip("/") != execution.uri:
            return None
        return execution

    def stack(self) -> list[Any]:
        """Return the thread's active runs, without the run of an execution that has ended."""
        stack: list[Any] = self._stack()
        execution = self.current()
        if stack and (of := getattr(stack[0], "of_execution", None)) and (execution is None or of != execution.id):
            del stack[0]
        return stack

    def claim(self, execution: Execution) -> Any:
        """Make the execution's run this thread's active run, and return it.

        Parameters
        ----------
        execution : Execution

        Returns
        -------
        mlflow.ActiveRun
        """
        from mlflow.entities import Run
        from mlflow.protos.service_pb2 import Run as ProtoRun
        from mlflow.utils.proto_json_utils import parse_dict

        message = ProtoRun()
        parse_dict(self._adopted(execution), message)
        run = self.fluent.ActiveRun(Run.from_proto(message))
        run.of_execution = execution.id
        self.execution = execution
        self.stack().append(run)
        return run

    def _adopted(self, execution: Execution) -> dict[str, Any]:
        """Return the execution's run in the server's format; from now on, mlflow can look it up."""
        journalled = mlflow_requests.requests()
        assert journalled is not None
        run: dict[str, Any] = journalled.adopt(execution, execution.run())["run"]
        return run

    def experiment_id(self) -> Any:
        """Return the experiment for mlflow's functions: the notebook's own unless a cell has chosen another."""
        own = None if self._is_chosen() else _attempt(self._own_experiment)
        return own or self._choice()

    def _choice(self) -> Any:
        """Return the experiment that cells have chosen. One call of a cell looks it up once, as that may create it."""
        ids = getattr(self._looked_up, "ids", None)
        if ids is None:
            return self._chosen_experiment()
        if not ids:
            ids.append(self._chosen_experiment())
        return ids[0]

    def _own_experiment(self) -> Any:
        execution = self._joined()
        return execution.run()["experiment_id"] if execution else None

    def _is_chosen(self) -> bool:
        return self.fluent._active_experiment_id is not None or any(map(os.environ.get, CHOSEN))

    def _belongs(self, execution: Execution) -> bool:
        """Return whether the execution's run is unused and in the chosen experiment, moving it there if possible."""
        if self.execution is execution or execution.deleted:
            return False
        if not self._is_chosen():
            return True
        chosen = self._choice()
        if not execution.is_in_experiment(chosen) and not execution.started:
            execution.move(chosen, self.fluent.get_experiment(chosen).name)
        return execution.is_in_experiment(chosen)

    # -- mlflow's functions ----------------------------------------------------------------------

    def _claiming(self, get_or_start_run: Callable[..., Any]) -> Callable[..., Any]:
        """Make what is logged without an active run go to the execution's run, the first time."""

        @functools.wraps(get_or_start_run)
        def call() -> Any:
            self._looked_up.ids = []
            try:
                return _attempt(self._claimed) or get_or_start_run()
            finally:
                self._looked_up.ids = None

        return call

    def _claimed(self) -> Any:
        execution = None if self.stack() or os.environ.get(env_vars.RUN_ID) else self._joined()
        if execution is None:
            return None
        with self._claims:
            run = self.claim(execution) if self._belongs(execution) else None
        return self._monitored(run) if run else None

    def _monitored(self, run: Any) -> Any:
        """Start system metrics if they are switched on, as mlflow does for a run that it starts."""
        if os.environ.get(env_vars.SYSTEM_METRICS, "").lower() not in {"true", "1"}:
            return run
        self.stack().pop()
        resumed = self.fluent.start_run(run_id=run.info.run_id)
        resumed.of_execution = run.of_execution
        return resumed

    def _starting(self, start_run: Callable[..., Any]) -> Callable[..., Any]:
        """Make a run that is started without a parent a child of the execution's run."""
        signature = inspect.signature(start_run)

        @functools.wraps(start_run)
        def call(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs)
            named = given.arguments.get("run_id") or os.environ.get(env_vars.RUN_ID)
            if not (named or given.arguments.get("parent_run_id") or self.stack()) and (own := _attempt(self._own_run)):
                given.arguments["tags"] = {PARENT_RUN: own, **(given.arguments.get("tags") or {})}
            run = start_run(*given.args, **given.kwargs)
            _attempt(lambda: self._note_start(run.info.run_id))
            return run

        return call

    def _own_run(self) -> Any:
        """Return the id of the execution's run; None if the server refuses it: no other run must wait for it."""
        execution = self._joined()
        own = self._adopted(execution)["info"]["run_id"] if execution else None
        return None if execution and (execution.refused or execution.deleted) else own

    def _note_start(self, run: str) -> None:
        """Record that a run is open, so that the sender can end it.

        At exit, mlflow ends the main thread's run, whatever status a client has given it. It never ends another
        thread's run, so that one keeps the status that a client has given it.
        """
        if execution := self._joined():
            in_main_thread = threading.current_thread() is threading.main_thread()
            self._open.add(run)
            execution.started = True
            execution.emit("run_status", run=run, status="RUNNING" if in_main_thread else NOT_ENDED)

    def _note_end(self, run: str, status: str) -> None:
        """Record that a run has ended, as the sender need not end it.

        A run whose end fails was started here but may be ended while cells use another server.
        """
        execution = self.current() if status == NOT_ENDED else self._joined()
        if execution and (status != NOT_ENDED or run in self._open):
            self._open.discard(run)
            execution.started = True
            execution.emit("run_status", run=run, status=status)

    def _ending(self, end_run: Callable[..., None]) -> Callable[..., None]:
        """Record the runs that a cell has ended."""

        @functools.wraps(end_run)
        def call(*args: Any, **kwargs: Any) -> None:
            stack = self.stack()
            run = stack[-1].info.run_id if stack else None
            status = NOT_ENDED
            try:
                end_run(*args, **kwargs)
                status = str(next(iter([*args, *kwargs.values()]), "FINISHED"))
            finally:
                if run:
                    _attempt(lambda: self._note_end(run, status))

        return call

    def _choosing(self, set_experiment: Callable[..., Any]) -> Callable[..., Any]:
        """Move the execution's run to the experiment that the first mlflow cell chooses."""

        @functools.wraps(set_experiment)
        def call(*args: Any, **kwargs: Any) -> Any:
            experiment = set_experiment(*args, **kwargs)
            _attempt(lambda: self._move(experiment))
            return experiment

        return call

    def _move(self, experiment: Any) -> None:
        execution = self._joined()
        if execution and self.execution is not execution:
            execution.move(experiment.experiment_id, experiment.name)

    def _end_at_exit(self) -> None:
        """End a run that a cell left open elsewhere; the sender ends those on the execution's server."""
        execution = self.current()
        if self._joined() is None and self._stack():
            failed = execution is not None and execution.failed
            try:
                self._end_run("FAILED" if failed else "FINISHED")
            except Exception as error:
                say_once(f"a run could not be ended ({type(error).__name__}: {error})")


def _attempt(work: Callable[[], Any]) -> Any:
    """Return the result of ``work``; None if it fails, so that the cell continues as in plain MLflow."""
    try:
        return work()
    except Exception as error:
        say_once(f"mlflow's calls are not logged to the notebook's run ({type(error).__name__}: {error})")
        return None

"""MLflow for scripts: a thin layer over ``mlflow`` whose runs contain what notebooks' runs do, see `MLflowTracker`."""

import contextlib
import functools
import io
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbtrack import env_vars, tags
from nbtrack.kernel import mlflow_fluent
from nbtrack.kernel.execution import Execution, current, set_current
from nbtrack.mlflow_rest import LIMIT
from nbtrack.notebook_context import Context
from nbtrack.plugins import functions
from nbtrack.sender.journal_reader import SCRIPT
from nbtrack.settings import enabled, switched_on
from nbtrack.terminal import say

if TYPE_CHECKING:
    from mlflow import ActiveRun


@functools.cache
def get_mlflow_tracker(experiment_name: str) -> "MLflowTracker":
    """Return this process's tracker for an experiment.

    Parameters
    ----------
    experiment_name : str
        See `MLflowTracker`.

    Raises
    ------
    ValueError
        If the name is empty or not a string.
    """
    return MLflowTracker(experiment_name)


class MLflowTracker:
    """Log what a script does as runs of one experiment.

    A run contains what a notebook's run contains: commit, dirty flag and lock; FINISHED, FAILED with the traceback, or
    KILLED with the cause; the script itself as an artifact. Everything that is logged inside ``start_run``, by these
    methods or by ``mlflow``'s own functions, is written to a journal first: a call takes less than half a second even
    if the server does not answer, and what the server cannot accept now is delivered once, automatically or by ``python
    -m nbtrack sync``. Secrets are masked. Processes that the script starts are not part of its run; notebooks that
    they execute are its child runs.

    The server is the same as for notebooks: ``MLFLOW_TRACKING_URI``, else what ``make server`` recorded, else port
    5000. With ``POKEBATTLE_TRACKING=off`` nothing is logged. If the address is not a server's (a file, a database),
    ``mlflow`` logs there by its own rules, without these guarantees.

    Parameters
    ----------
    experiment_name : str
        Created when its first run begins. In a tracked notebook, and inside another ``start_run``, a run is a child of
        that run and belongs to its experiment; the tag ``pokebattle.experiment`` then contains this name.

    Raises
    ------
    ValueError
        If the name is empty or not a string.

    Examples
    --------
    >>> tracker = MLflowTracker(experiment_name="battle_winner_v3")
    >>> with tracker.start_run(run_name="quick look"):
    ...     tracker.log_params({"max_depth": 6})
    ...     tracker.log_metrics({"log_loss": 0.143})
    ...     tracker.log_model(model, "model")
    """

    def __init__(self, experiment_name: str) -> None:
        if not isinstance(experiment_name, str) or not experiment_name.strip():
            raise ValueError(f"experiment_name: expected a name, got {experiment_name!r}")
        self.experiment_name = experiment_name
        self._silent = 0  # active runs that are not tracked

    @contextlib.contextmanager
    def start_run(self, run_name: str | None = None) -> Iterator["ActiveRun | None"]:
        """Begin a run that ends with the ``with`` block.

        Parameters
        ----------
        run_name : str, optional
            By default, the script's name. A run that is a child or is not tracked gets MLflow's default name.

        Yields
        ------
        mlflow.ActiveRun or None
            MLflow's run, with local ids while the server does not answer. None if nothing is logged.
        """
        execution = self._open(run_name) if enabled() and current() is None else None
        if execution:
            with _whole(execution) as run:
                yield run
        elif switched_on() and (current() or not enabled()):
            with self._child(run_name) as run:
                yield run
        else:
            self._silent += 1
            try:
                yield None
            finally:
                self._silent -= 1

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters; as always in MLflow, a parameter that the run already has cannot change.

        Parameters
        ----------
        params : mapping
            Value by name.

        Raises
        ------
        RuntimeError
            If no run is active.
        mlflow.exceptions.MlflowException
            If a parameter contradicts an earlier one.
        """
        if self._logs():
            _mlflow().log_params(dict(params))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics.

        Parameters
        ----------
        metrics : mapping
            Number by name.
        step : int, optional
            Position on a curve (0, 1, ...).

        Raises
        ------
        RuntimeError
            If no run is active.
        """
        if self._logs():
            _mlflow().log_metrics(dict(metrics), step=step)

    def log_model(
        self, model: Any, artifact_path: str = "model", model_type: str | None = None, **options: Any
    ) -> None:
        """Log a fitted model with the packages that it needs, pinned; nothing is pickled.

        - A model type that a plugin knows (`plugins.Plugin.model_logger`): as the plugin stores it.
        - XGBoost's ``Booster`` and its estimators (``XGBClassifier``, ...): XGBoost's own format, UBJSON.
        - scikit-learn: the skops format, which contains arrays and the names of known types. A model with types unknown
          to skops is refused; after reviewing them, name them: ``skops_trusted_types=[...]``.

        Parameters
        ----------
        model : object
        artifact_path : str
            Name of the model on the run.
        model_type : {"xgboost", "sklearn"}, optional
            The kind that the model must be, which is checked. How it is stored depends on the model alone.
        **options
            Passed to ``mlflow.<flavor>.log_model``, for example ``signature`` and ``input_example``.

        Raises
        ------
        ValueError
            If ``model_type`` is unknown, or the model is not of that type.
        RuntimeError
            If no run is active.
        mlflow.exceptions.MlflowException
            If skops does not know some of the model's types.
        """
        log = _logging(model, model_type)
        if self._logs():
            with contextlib.redirect_stderr(io.StringIO()):  # hides MLflow's log lines; errors are raised
                log(model, artifact_path, **options)

    def _open(self, run_name: str | None) -> Execution | None:
        """Open a run for this process; return None, and print one line, if the journal cannot be written."""
        _mlflow()  # imported first, so that the run's time excludes the import
        script = _script()
        names = (self.experiment_name, run_name or (script.stem if script else self.experiment_name))
        try:
            source = script.read_text("utf-8", "replace") if script else ""
            execution = Execution(Context(SCRIPT, script).opening(names) | {"parent": None})
        except OSError as error:
            say(f"this run is not tracked ({type(error).__name__}: {error})")
            return None
        execution.freeze_names(names)
        execution.emit("cell_start", cell=0, cell_id=None, source=source)
        return execution

    @contextlib.contextmanager
    def _child(self, run_name: str | None) -> Iterator["ActiveRun"]:
        """Begin a run below the active run, or a run of plain mlflow if there is no server."""
        mlflow, process = _mlflow(), os.getpid()
        if current() is None and mlflow.active_run() is None:
            mlflow.set_experiment(self.experiment_name)
        run = mlflow.start_run(run_name=run_name, nested=mlflow.active_run() is not None)
        mlflow.set_tag(tags.EXPERIMENT, self.experiment_name)
        try:
            yield run
        except BaseException as error:
            error_output = _error_output(error)
            if os.getpid() == process:
                if error_output:
                    last, whole = (
                        f"{error_output['ename']}: {error_output['evalue']}",
                        "\n".join(error_output["traceback"]),
                    )
                    mlflow.set_tag(tags.ERROR, last[: LIMIT["tags"]])
                    mlflow.set_tag(tags.TRACEBACK, whole[-LIMIT["tags"] :])
                stopped = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
                mlflow.end_run(stopped if error_output else "FINISHED")
            raise
        mlflow.end_run()

    def _logs(self) -> bool:
        """Return whether logging is on now; each call may wait for the server again.

        Raises
        ------
        RuntimeError
            If no run is active.
        """
        if self._silent or not switched_on():
            return False
        if _mlflow().active_run() is None:
            raise RuntimeError("no run is active: log inside `with tracker.start_run(...):`")
        return True


@contextlib.contextmanager
def _whole(execution: Execution) -> Iterator["ActiveRun"]:
    """Make mlflow log to an execution, and record how the block ended as the run's only cell."""
    began, before = time.perf_counter(), os.environ.get(env_vars.PARENT)
    set_current(execution)
    os.environ[env_vars.PARENT] = execution.id
    error_output: dict[str, Any] | None = None
    try:
        yield _join_mlflow(execution)
    except BaseException as error:
        error_output = _error_output(error)
        raise
    finally:
        if os.getpid() == execution.pid:  # the end of a fork is not the script's
            if error_output:
                execution.emit("output", cell=0, output="error", content=error_output)
            execution.emit(
                "cell_end",
                cell=0,
                seconds=round(time.perf_counter() - began, 6),
                ok=error_output is None,
                execution_count=1,
                error=error_output["ename"] if error_output else None,
            )
            set_current(None)
            del os.environ[env_vars.PARENT]
            os.environ |= {env_vars.PARENT: before} if before else {}
            execution.end()


def _join_mlflow(execution: Execution) -> "ActiveRun":
    """Make mlflow's own functions log to the active execution; return its run as mlflow sees it."""
    mlflow = _mlflow()
    if mlflow_fluent.attachment() is None:
        mlflow_fluent.install(current)
    named = env_vars.TRACKING_URI in os.environ
    mlflow.set_tracking_uri(execution.uri)
    if not named:  # set by mlflow, it would look like the user's choice
        os.environ.pop(env_vars.TRACKING_URI, None)
    joined = mlflow_fluent.attachment()
    assert joined is not None
    return joined.claim(execution)


def _error_output(error: BaseException) -> dict[str, Any] | None:
    """Return the exception that ended a block in the form of a notebook's error; None for a normal exit."""
    if isinstance(error, SystemExit) and not error.code:
        return None
    behind = error.__traceback__
    while behind and behind.tb_frame.f_code.co_filename == __file__:
        behind = behind.tb_next
    lines = traceback.format_exception(type(error), error, behind)
    return {"ename": type(error).__name__, "evalue": str(error), "traceback": [line.rstrip("\n") for line in lines]}


def _script() -> Path | None:
    """Return the script that this process executes; None for a program of the environment or an interactive session."""
    named = getattr(sys.modules["__main__"], "__file__", None)
    file = Path(named).absolute() if named else None
    return file if file and file.is_file() and not file.is_relative_to(sys.prefix) else None


def _mlflow() -> Any:
    import mlflow  # takes a second, so only when a run begins

    return mlflow


def _logging(model: Any, model_type: str | None) -> Callable[..., Any]:
    """Return the function that logs this kind of model."""
    of_plugin = next(filter(None, (model_logger(model) for model_logger in functions("model_logger"))), None)
    is_xgboost = of_plugin is not None or _is_of(model, "xgboost", "Booster", "XGBModel")
    fits = {"xgboost": is_xgboost, "sklearn": _is_of(model, "sklearn.base", "BaseEstimator")}
    if model_type not in (None, *fits):
        near = get_close_matches(str(model_type), fits, 1, 0.0)[0]
        raise ValueError(f"model_type: expected one of {', '.join(fits)}, got {model_type!r}; nearest is {near!r}")
    if not (fits[model_type] if model_type else any(fits.values())):
        wanted = f"a fitted {model_type} model" if model_type else "an XGBoost or a scikit-learn model"
        raise ValueError(f"model: expected {wanted}, got {type(model).__module__}.{type(model).__qualname__}")
    return of_plugin or (_log_xgboost if is_xgboost else _log_sklearn)


def _is_of(model: Any, module: str, *names: str) -> bool:
    """Return whether a model is an instance of a library's classes; a library that is not loaded has no instances."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(model, tuple(getattr(loaded, name) for name in names))


def _log_xgboost(model: Any, name: str, **options: Any) -> None:
    import mlflow.xgboost

    mlflow.xgboost.log_model(model, name=name, **_pinned() | options)


def _log_sklearn(model: Any, name: str, **options: Any) -> None:
    import mlflow.sklearn

    needed = _pinned(f"skops=={version('skops')}")
    mlflow.sklearn.log_model(model, name=name, **needed | {"serialization_format": "skops"} | options)


def _pinned(*more: str) -> dict[str, Any]:
    """Return the option with the requirements that plugins name; without any, MLflow infers them."""
    named = [one for requirements in functions("requirements") for one in requirements()]
    return {"pip_requirements": [*named, *more]} if named else {}

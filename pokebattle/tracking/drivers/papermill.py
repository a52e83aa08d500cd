"""The papermill engine of this environment: refuses bad parameters early, tells the kernel what it knows.

papermill imports this module through its entry-point group; being imported makes it the default engine.
"""

import os
import time
from pathlib import Path
from typing import Any

import click
from papermill import engines
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.log import logger
from papermill.utils import merge_kwargs, remove_args

from pokebattle.tracking.cells import wants_tracking
from pokebattle.tracking.context import HANDOVER, UNTRACKED
from pokebattle.tracking.drivers import handover
from pokebattle.tracking.journal import execution_folder, new_execution_id, read_json, run_address
from pokebattle.tracking.settings import enabled, tracking_uri

PATIENCE = 2.0  # seconds that a command whose kernel ran nothing waits for the address of its run


class ParameterError(click.ClickException, ValueError):
    """A parameter that the notebook's schema refuses: one line and exit code 1 on the command line."""


class TrackedEngine(NBClientEngine):
    """papermill's own engine, with validation before the kernel starts and a handover to the kernel."""

    @classmethod
    def execute_notebook(cls, nb: Any, kernel_name: str, output_path: str | None = None, **kwargs: Any) -> Any:
        """Validate the parameters, then execute as papermill does.

        Raises
        ------
        ParameterError
            Unknown name, wrong type, value out of range or unknown version; no kernel has run, nothing but a failed
            run tells of it.
        """
        told = _told(nb, kwargs.get("input_path")) if enabled() else None
        error: BaseException | None = None
        try:
            _validate(nb, _name(kwargs.get("input_path")))
            return super().execute_notebook(nb, kernel_name, output_path, told=told, **kwargs)
        except PapermillExecutionError:  # a cell's own error, which the kernel has noted
            raise
        except BaseException as raised:
            error = raised
            raise
        finally:  # the progress bar is closed by now
            if told:
                _finish(told, error)

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, log_output: bool = False, stdout_file: Any = None,
        stderr_file: Any = None, start_timeout: int = 60, execution_timeout: int | None = None,
        told: dict[str, Any] | None = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Execute in a kernel whose environment names the handover."""
        environment = dict(os.environ)
        environment[HANDOVER] = UNTRACKED
        if told:
            if isinstance(own := nb_man.nb.metadata.get("pokebattle"), dict):  # other notebooks stay as papermill's
                own["execution"] = told["execution"]
            environment[HANDOVER] = handover.hand_over(told["execution"], told)
        options = merge_kwargs(
            remove_args(["input_path", "timeout", "startup_timeout"], **kwargs),
            timeout=execution_timeout or kwargs.get("timeout"), startup_timeout=start_timeout,
            kernel_name=kernel_name, log=logger, log_output=log_output, stdout_file=stdout_file,
            stderr_file=stderr_file,
        )  # fmt: skip
        return engines.PapermillNotebookClient(nb_man, **options).execute(env=environment)


def _validate(nb: Any, name: str) -> None:
    own = nb.metadata.get("pokebattle")
    if not isinstance(own, dict) or own.get("schema") != "params":
        return
    from pokebattle.params import ParamsError, validate

    source = next((c.source for c in nb.cells if "parameters" in c.metadata.get("tags", [])), "")
    try:
        validate(name, source, dict(nb.metadata.papermill.get("parameters", {})))
    except ParamsError as error:
        raise ParameterError(str(error)) from error


def _usable(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that may name a run: a version that does not exist gets no experiment, nor another's."""
    from pokebattle.params import versions

    unknown = "version" in parameters and parameters["version"] not in versions()
    return parameters | ({"version": "unknown"} if unknown else {})


def _say_where(folder: Path, patience: float) -> None:
    run, deadline = read_json(folder / "run.json"), time.monotonic() + patience
    while not {"run_id", "away"} & set(run) and time.monotonic() < deadline:
        time.sleep(0.02)
        run = read_json(folder / "run.json")
    if run.get("run_id"):
        logger.info(f"MLflow run: {run_address(run)}")
    elif folder.is_dir():
        logger.info(f"MLflow run: waits in {folder} for {tracking_uri()} (`python -m pokebattle doctor`)")


@handover.guarded
def _told(nb: Any, input_path: Any) -> dict[str, Any] | None:
    """Return what the kernel cannot know; None for a notebook that is not to be tracked."""
    if not wants_tracking(nb):
        return None
    given = input_path if isinstance(input_path, (str, os.PathLike)) else None  # else a notebook in memory
    notebook = os.path.abspath(given) if given and os.path.isfile(given) else None  # noqa: PTH100, PTH113 - any text
    return {"executor": "papermill", "notebook": notebook, "execution": new_execution_id(),
            "parameters": dict(nb.metadata.papermill.get("parameters", {})), "document": nb}  # fmt: skip


def _name(input_path: Any) -> str:
    """Return what a message calls the notebook."""
    return str(input_path) if isinstance(input_path, (str, os.PathLike)) and input_path else "notebook"


@handover.guarded
def _finish(told: dict[str, Any], error: BaseException | None) -> None:
    """Say that papermill is done, and where the run is; make a failed run of what no kernel has begun."""
    execution = told["execution"]
    begun = error is None or handover.has_begun(execution)
    if error is not None and not begun:
        handover.refuse(execution, told, error, _usable(told["parameters"]))
    handover.finish(execution, error)
    _say_where(execution_folder(execution), 0.0 if begun else PATIENCE)


papermill_engines.register(None, TrackedEngine)

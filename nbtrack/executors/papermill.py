"""The papermill engine of this environment: it refuses invalid parameters early, and describes executions to kernels.

papermill imports this module through its entry-point group; importing it makes the engine the default one.
"""

import contextlib
import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import click
from papermill import engines
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import papermill_io
from papermill.log import logger
from papermill.utils import merge_kwargs, remove_args

from nbtrack import env_vars
from nbtrack.cells import METADATA_KEY, PARAMETERS, wants_tracking
from nbtrack.executions import execution_folder, new_execution_id, run_address
from nbtrack.executors import handover
from nbtrack.files import in_words, read_json
from nbtrack.notebook_context import UNTRACKED
from nbtrack.plugins import functions
from nbtrack.settings import enabled, tracking_uri

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
PATIENCE = 2.0  # seconds to wait for a run's address if the run was not created by a kernel


class ParameterError(click.ClickException, ValueError):
    """A parameter that the notebook's schema rejects: one line and exit code 1 on the command line."""


class TrackedEngine(NBClientEngine):
    """papermill's own engine, with validation before the kernel starts and a handover to the kernel."""

    @classmethod
    def execute_notebook(cls, nb: Any, kernel_name: str, output_path: str | None = None, **kwargs: Any) -> Any:
        """Validate the parameters, then execute as papermill does.

        Parameters
        ----------
        nb : NotebookNode
        kernel_name : str
        output_path : str, optional
        **kwargs
            As papermill's engines.

        Raises
        ------
        ParameterError
            If a name or version is unknown, a type is wrong or a value is out of range. No kernel is started; a failed
            run records the error.
        """
        context = _context(nb, kwargs.get("input_path")) if enabled() else None
        error: BaseException | None = None
        try:
            _validate(nb, _name(kwargs.get("input_path")), context)
            return super().execute_notebook(nb, kernel_name, output_path, context=context, **kwargs)
        except PapermillExecutionError:  # a cell's own error, which the kernel has recorded
            raise
        except BaseException as raised:
            error = raised
            raise
        finally:  # here, as the progress bar is closed by now
            if context:
                _finish(context, error, nb, kernel_name)

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        log_output: bool = False,
        stdout_file: Any = None,
        stderr_file: Any = None,
        start_timeout: int = 60,
        execution_timeout: int | None = None,
        context: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Execute in a kernel whose environment names the handover file.

        Parameters
        ----------
        nb_man : NotebookExecutionManager
        context : dict, optional
            As in `handover.hand_over`; None for an execution that is not tracked.
        kernel_name, log_output, stdout_file, stderr_file, start_timeout, execution_timeout, **kwargs
            As papermill's engines.
        """
        environment = dict(os.environ)
        environment[env_vars.HANDOVER] = UNTRACKED
        if context:
            if isinstance(metadata := nb_man.nb.metadata.get(METADATA_KEY), dict):  # other notebooks are not changed
                metadata["execution"] = context["execution"]
            environment[env_vars.HANDOVER] = handover.hand_over(context["execution"], context)
        options = merge_kwargs(
            remove_args(["input_path", "timeout", "startup_timeout"], **kwargs),
            timeout=execution_timeout or kwargs.get("timeout"),
            startup_timeout=start_timeout,
            kernel_name=kernel_name,
            log=logger,
            log_output=log_output,
            stdout_file=stdout_file,
            stderr_file=stderr_file,
        )
        return engines.PapermillNotebookClient(nb_man, **options).execute(env=environment)


@handover.guarded
def _finish(context: dict[str, Any], error: BaseException | None, nb: Any, kernel: str) -> None:
    """Record that papermill has finished, and print the run's address.

    If no kernel has begun a run, create one from what papermill knows.
    """
    execution, watched = context["execution"], True
    if error is not None and not handover.has_begun(execution):
        handover.record_failed_launch(execution, context, error, _usable(context["parameters"]))
        watched = False
    elif error is None and handover.is_unread(execution) and (cells := _cell_records(nb)):
        handover.record_without_kernel(
            execution, context, cells, f"the kernel {kernel} does not load nbtrack's extension"
        )
        watched = False
    handover.finish(execution, error)
    _say_where(execution_folder(execution), 0.0 if watched else PATIENCE)


def _validate(nb: Any, name: str, context: dict[str, Any] | None) -> None:
    settings = nb.metadata.get(METADATA_KEY)
    if not isinstance(settings, dict):  # the notebook has no settings for nbtrack
        return
    source = next((c.source for c in nb.cells if PARAMETERS in c.metadata.get("tags", [])), "")
    given = context["parameters"] if context else dict(nb.metadata.papermill.get("parameters", {}))
    try:
        for check_parameters in functions("check_parameters"):
            check_parameters(name, settings, source, given)
    except ValueError as error:
        raise ParameterError(str(error)) from error


def _cell_records(nb: Any) -> list[handover.CellRecord]:
    """Return what papermill has recorded of the cells that ran."""
    records = []
    for cell in nb.cells:
        timing = cell.metadata.get("papermill") or {}
        if cell.cell_type == "code" and cell.source.strip() and timing.get("start_time"):
            began = int(datetime.fromisoformat(timing["start_time"]).replace(tzinfo=UTC).timestamp() * 1000)
            records.append(
                handover.CellRecord(cell, began, float(timing.get("duration") or 0), bool(timing.get("exception")))
            )
    return records


def _usable(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return rejected parameters in a form from which the run's name can be built."""
    for parameters_for_run_name in functions("parameters_for_run_name"):
        parameters = dict(parameters_for_run_name(parameters))
    return parameters


def _say_where(folder: Path, patience: float) -> None:
    run, deadline = read_json(folder / "run.json"), time.monotonic() + patience
    while not {"run_id", "away"} & set(run) and time.monotonic() < deadline:
        time.sleep(0.02)
        run = read_json(folder / "run.json")
    if run.get("run_id"):
        logger.info(f"MLflow run: {run_address(run)}")
    elif folder.is_dir():
        logger.info(f"MLflow run: waits in {folder} for {tracking_uri()} (`python -m nbtrack doctor`)")


@handover.guarded
def _context(nb: Any, input_path: Any) -> dict[str, Any] | None:
    """Return what the kernel cannot know; None for a notebook that must not be tracked.

    In papermill's own metadata, parameters that JSON does not allow become strings: otherwise no browser could
    open the notebook.
    """
    if not wants_tracking(nb):
        return None
    plan = dict(nb.metadata.papermill)
    given = dict(plan.get("parameters") or {})
    if (words := in_words(given)) != given:
        nb.metadata.papermill["parameters"] = words
    where = _source(input_path)
    if not any(where.values()):
        where["title"] = PurePosixPath(_plain_address(str(plan.get("output_path") or ""))).stem
    # if no file was given, papermill's input path may be a whole notebook or contain a key to it
    plan["input_path"] = where["notebook"] or where["address"] or None
    document = {**nb, "metadata": {**nb.metadata, "papermill": plan}}
    return {
        "executor": "papermill",
        "execution": new_execution_id(),
        "parameters": given,
        "document": document,
        **where,
    }


def _name(input_path: Any) -> str:
    """Return the notebook's name for messages."""
    return str(input_path) if isinstance(input_path, str | os.PathLike) and input_path else "notebook"


def _source(input_path: Any) -> dict[str, Any]:
    """Return the ``notebook`` file that papermill reads, or its ``address``; neither for a notebook in memory."""
    where: dict[str, Any] = {"notebook": None, "address": "", "title": ""}
    text = str(input_path) if isinstance(input_path, str | os.PathLike) else ""
    if ADDRESS.match(text):
        return where | {"address": _plain_address(text)}
    if text == "-":
        with contextlib.suppress(OSError):
            text = str(Path("/proc/self/fd/0").readlink())  # the file that the shell redirected
    base = Path(getattr(papermill_io.get_handler(text), "_cwd", None) or Path.cwd()) if text else Path()
    try:
        return where | {"notebook": str(base / text)} if text and (base / text).is_file() else where
    except (OSError, ValueError):  # the input may be a notebook's own text
        return where


def _plain_address(address: str) -> str:
    """Return an address without password, query and fragment, which may contain keys."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


papermill_engines.register(None, TrackedEngine)

"""The papermill engine of this environment: refuses bad parameters early, tells the kernel what it knows.

papermill imports this module through its entry-point group; being imported makes it the default engine.
"""

import json
import os
from pathlib import Path
from typing import Any

import click
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.log import logger
from papermill.utils import merge_kwargs, remove_args

from pokebattle.tracking.context import HANDOVER
from pokebattle.tracking.journal import execution_folder, new_execution_id, read_json, run_address
from pokebattle.tracking.settings import enabled


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
            Unknown name, wrong type, value out of range or unknown version; nothing has been written.
        """
        _validate(nb, str(kwargs.get("input_path") or "notebook"))
        execution = new_execution_id()
        try:
            return super().execute_notebook(nb, kernel_name, output_path, execution=execution, **kwargs)
        finally:  # the progress bar is closed by now
            run = read_json(execution_folder(execution) / "run.json")
            if run.get("run_id"):
                logger.info(f"MLflow run: {run_address(run)}")

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, log_output: bool = False, stdout_file: Any = None,
        stderr_file: Any = None, start_timeout: int = 60, execution_timeout: int | None = None,
        execution: str = "", **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Execute in a kernel whose environment names the handover."""
        environment = dict(os.environ)
        if enabled():
            environment[HANDOVER] = str(_hand_over(nb_man.nb, execution, kwargs.get("input_path")))
        options = merge_kwargs(
            remove_args(["input_path", "timeout", "startup_timeout"], **kwargs),
            timeout=execution_timeout or kwargs.get("timeout"), startup_timeout=start_timeout,
            kernel_name=kernel_name, log=logger, log_output=log_output, stdout_file=stdout_file,
            stderr_file=stderr_file,
        )  # fmt: skip
        return PapermillNotebookClient(nb_man, **options).execute(env=environment)


def _validate(nb: Any, name: str) -> None:
    if (nb.metadata.get("pokebattle") or {}).get("schema") != "params":
        return
    from pokebattle.params import ParamsError, validate

    source = next((c.source for c in nb.cells if "parameters" in c.metadata.get("tags", [])), "")
    try:
        validate(name, source, dict(nb.metadata.papermill.get("parameters", {})))
    except ParamsError as error:
        raise ParameterError(str(error)) from error


def _hand_over(nb: Any, execution: str, input_path: Any) -> Path:
    """Write down for the kernel which notebook it runs, with which parameters, as which execution."""
    notebook = Path(str(input_path)).absolute() if input_path and Path(str(input_path)).is_file() else None
    if "pokebattle" in nb.metadata:
        nb.metadata.pokebattle["execution"] = execution
    folder = execution_folder(execution)
    folder.mkdir(parents=True, mode=0o700)
    file = folder / "handover.json"
    told = {
        "notebook": str(notebook) if notebook else None,
        "execution": execution,
        "parameters": dict(nb.metadata.papermill.get("parameters", {})),
        "document": nb,
    }
    file.write_text(json.dumps(told, default=str), encoding="utf-8")
    return file


papermill_engines.register(None, TrackedEngine)

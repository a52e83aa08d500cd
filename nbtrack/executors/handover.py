"""What papermill or pytest reports of an execution: the notebook, its parameters, its end and errors."""

import contextlib
import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbtrack import notebook_context, processes
from nbtrack.cells import INJECTED, NO_TRACK, cell_source, is_untracked, tags_of_cell, without_secrets
from nbtrack.executions import execution_folder
from nbtrack.files import write_atomically
from nbtrack.journal import Journal, append_event, secretless
from nbtrack.sender_start import NEVER_RAN, opening, start_sender
from nbtrack.tags import KNOWN
from nbtrack.terminal import say


def hand_over(execution: str, context: dict[str, Any]) -> str:
    """Write notebook and execution to a file for the kernel.

    If it cannot be written, print the reason and let the kernel run without tracking.

    Parameters
    ----------
    execution : str
        The execution's id.
    context : dict
        Fields of `Context`, with the notebook as ``document``.

    Returns
    -------
    str
        The value for the kernel's environment variable `env_vars.HANDOVER`.
    """
    try:
        document = without_secrets(context["document"])
        context = context | {"document": document, "driver": processes.identity(os.getpid())}
        return notebook_context.write_handover(execution_folder(execution), **context)
    except Exception as error:
        say(f"this execution is not tracked ({type(error).__name__}: {error})")
        return notebook_context.UNTRACKED


def guarded(step: Callable[..., Any]) -> Callable[..., Any]:
    """Keep exceptions in tracking away from the program that executes the notebook, and print them in one line.

    Parameters
    ----------
    step : callable
    """

    @functools.wraps(step)
    def call(*args: Any) -> Any:
        try:
            return step(*args)
        except Exception as error:
            say(f"this execution is not tracked ({step.__name__}: {type(error).__name__}: {error})")
            return None

    return call


@guarded
def finish(execution: str, error: BaseException | None = None) -> None:
    """Record that this program has finished with the execution, and its own error, if any.

    Parameters
    ----------
    execution : str
        The execution's id.
    error : BaseException, optional
    """
    folder = execution_folder(execution)
    if error is None:
        append_event(folder, "driver_end")
    else:
        append_event(folder, "driver_end", error=type(error).__name__, message=str(error)[:2000])
    if folder.is_dir() and not has_begun(execution):  # no cell has run, so there is no execution
        (folder / "handover.json").unlink(missing_ok=True)
        folder.rmdir()


def has_begun(execution: str) -> bool:
    """Return whether the kernel, or `record_failed_launch`, has begun the execution's journal.

    Parameters
    ----------
    execution : str
        The execution's id.
    """
    return (execution_folder(execution) / "journal.jsonl").is_file()


def is_unread(execution: str) -> bool:
    """Return whether the kernel has not read the file written for it, for example because it has no extension.

    Parameters
    ----------
    execution : str
        The execution's id.
    """
    return (execution_folder(execution) / "handover.json").is_file()


@guarded
def record_failed_launch(execution: str, context: dict[str, Any], error: BaseException, naming: dict[str, Any]) -> None:
    """Create a run for an execution whose kernel was not started, or has recorded nothing.

    Parameters
    ----------
    execution : str
        The execution's id.
    context : dict
        As in `hand_over`.
    error : BaseException
        Why the notebook was not executed.
    naming : dict
        Parameters for the names of experiment and run.
    """
    document = without_secrets(context["document"])
    cells = document.get("cells", [])  # the injected one contains the refused parameters
    cells = [cell for cell in cells if INJECTED not in tags_of_cell(cell)]
    journal = _record(execution, context, {**document, "cells": cells}, naming)
    journal.append("driver_end", error=type(error).__name__, message=str(error)[:2000])
    died = type(error).__name__ == "DeadKernelError" or str(error).startswith("Kernel died")  # nbclient's message
    _close(journal, NEVER_RAN if died else "no kernel was started")


@dataclass
class CellRecord:
    """What a program recorded of a cell.

    Attributes
    ----------
    cell : dict
        The executed cell.
    began : int
        In ms since the epoch.
    seconds : float
    failed : bool
    """

    cell: dict[str, Any]
    began: int
    seconds: float
    failed: bool


@guarded
def record_without_kernel(execution: str, context: dict[str, Any], cells: list[CellRecord], why: str) -> None:
    """Create a run from what the program recorded of an execution whose kernel records nothing itself.

    Parameters
    ----------
    execution : str
        The execution's id.
    context : dict
        As in `hand_over`.
    cells : list of CellRecord
        At least one.
    why : str
        Why the kernel records nothing.
    """
    start_fields = {"time": cells[0].began, "prefix": ""}
    journal = _record(execution, context, without_secrets(context["document"]), context["parameters"], **start_fields)
    journal.append("tags", values={KNOWN: f"recorded by {context['executor']} only: {why}"})
    for turn, one in enumerate(cells):
        ended, count = one.began + int(1000 * one.seconds), one.cell.get("execution_count")
        hidden = is_untracked(cell_source(one.cell))
        shown = {"source": NO_TRACK, "untracked": True} if hidden else {"source": cell_source(one.cell)}
        journal.append(
            "cell_start", cell=turn, cell_id=one.cell.get("id"), execution_count=count, time=one.began, **shown
        )
        outputs = [] if hidden else one.cell.get("outputs", [])
        for output in outputs:
            content = {key: value for key, value in output.items() if key != "output_type"}
            journal.append("output", cell=turn, output=output["output_type"], content=content, time=ended)
        error = next((output["ename"] for output in outputs if output["output_type"] == "error"), None)
        journal.append(
            "cell_end",
            cell=turn,
            seconds=one.seconds,
            ok=not one.failed,
            execution_count=count,
            error=error,
            time=ended,
        )
    journal.append("driver_end")
    _close(journal, "the kernel was not tracked")


def _record(
    execution: str, context: dict[str, Any], document: dict[str, Any], naming: dict[str, Any], **fields: Any
) -> Journal:
    """Begin the journal of an execution without a tracked kernel."""
    notebook = Path(context["notebook"]) if context["notebook"] else None
    execution_context = notebook_context.Context(
        context["executor"],
        notebook,
        document,
        naming,
        address=context["address"],
        title=context["title"],
        top=Path.cwd(),
    )
    names = execution_context.names({})
    journal = Journal(execution_folder(execution))
    journal.append("start", **opening(execution, **execution_context.opening(names), parent=None, **fields))
    journal.append("names", experiment=names[0], run_name=names[1])
    journal.append("params", values=context["parameters"])
    with contextlib.suppress(OSError):  # the disk is full
        write_atomically(journal.folder / "notebook.json", json.dumps(secretless(document)))
    return journal


def _close(journal: Journal, cause: str) -> None:
    """End the journal and have it delivered."""
    journal.append("kernel_end", cause=cause, signal=None)
    journal.close()
    listen, bell = os.pipe()
    start_sender(journal.folder, listen, os.getpid())
    os.close(listen)
    os.close(bell)

"""What a program that drives a notebook (papermill, pytest) tells about the execution: what only it can know."""

import contextlib
import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pokebattle.tracking import context, processes
from pokebattle.tracking.cells import NO_TRACK, cell_source, is_untracked, tags_of_cell, without_secrets
from pokebattle.tracking.journal import Journal, append_event, execution_folder, secretless, write_atomically
from pokebattle.tracking.notice import say
from pokebattle.tracking.opening import NEVER_RAN, opening, start_shipper


def hand_over(execution: str, told: dict[str, Any]) -> str:
    """Write down for the kernel which notebook it will run, as which execution; return what it reads.

    Where nothing can be written that is said, and the kernel is told to go on without tracking.
    """
    try:
        document = without_secrets(told["document"])
        told = told | {"document": document, "driver": processes.identity(os.getpid())}
        return context.hand_over(execution_folder(execution), **told)
    except Exception as error:
        say(f"this execution is not tracked ({type(error).__name__}: {error})")
        return context.UNTRACKED


def guarded(step: Callable[..., Any]) -> Callable[..., Any]:
    """Keep a failure of tracking away from the program that drives the notebook, and say it in one line."""

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
    """Say that this program is done with the execution, and with which error of its own, if there was one."""
    folder = execution_folder(execution)
    if error is None:
        append_event(folder, "driver_end")
    else:
        append_event(folder, "driver_end", error=type(error).__name__, message=str(error)[:2000])
    if folder.is_dir() and not has_begun(execution):  # no cell was run, so there is no execution
        (folder / "handover.json").unlink(missing_ok=True)
        folder.rmdir()


def has_begun(execution: str) -> bool:
    """Tell whether the kernel, or `refuse`, has begun the execution's record."""
    return (execution_folder(execution) / "journal.jsonl").is_file()


def is_unread(execution: str) -> bool:
    """Tell whether the kernel has left alone what was written down for it, as one without the extension does."""
    return (execution_folder(execution) / "handover.json").is_file()


@guarded
def refuse(execution: str, told: dict[str, Any], error: BaseException, naming: dict[str, Any]) -> None:
    """Make a run of an execution whose kernel was not started, or has noted nothing, named by ``naming``."""
    document = without_secrets(told["document"])
    cells = document.get("cells", [])  # the injected one holds what was refused
    cells = [cell for cell in cells if "injected-parameters" not in tags_of_cell(cell)]
    journal = _record(execution, told, {**document, "cells": cells}, naming)
    journal.append("driver_end", error=type(error).__name__, message=str(error)[:2000])
    died = type(error).__name__ == "DeadKernelError" or str(error).startswith("Kernel died")  # so says nbclient
    _close(journal, NEVER_RAN if died else "no kernel was started")


@dataclass
class Seen:
    """What a program saw of a cell: when it ran (in ms), for how many seconds, and whether it failed."""

    cell: dict[str, Any]
    began: int
    seconds: float
    failed: bool


@guarded
def tell(execution: str, told: dict[str, Any], seen: list[Seen], why: str) -> None:
    """Make a run of what the program saw of an execution whose kernel tells nothing itself."""
    own = {"time": seen[0].began, "prefix": ""}
    journal = _record(execution, told, without_secrets(told["document"]), told["parameters"], **own)
    journal.append("tags", values={"pokebattle.known": f"only what {told['executor']} saw: {why}"})
    for turn, one in enumerate(seen):
        ended, count = one.began + int(1000 * one.seconds), one.cell.get("execution_count")
        hidden = is_untracked(cell_source(one.cell))
        shown = {"source": NO_TRACK, "untracked": True} if hidden else {"source": cell_source(one.cell)}
        journal.append("cell_start", cell=turn, cell_id=one.cell.get("id"), execution_count=count, time=one.began,
                       **shown)  # fmt: skip
        outputs = [] if hidden else one.cell.get("outputs", [])
        for output in outputs:
            content = {key: value for key, value in output.items() if key != "output_type"}
            journal.append("output", cell=turn, output=output["output_type"], content=content, time=ended)
        error = next((output["ename"] for output in outputs if output["output_type"] == "error"), None)
        journal.append("cell_end", cell=turn, seconds=one.seconds, ok=not one.failed, execution_count=count,
                       error=error, time=ended)  # fmt: skip
    journal.append("driver_end")
    _close(journal, "the kernel was not watched")


def _record(
    execution: str, told: dict[str, Any], document: dict[str, Any], naming: dict[str, Any], **own: Any
) -> Journal:
    """Begin the record of an execution that no kernel writes down."""
    notebook = Path(told["notebook"]) if told["notebook"] else None
    who = context.Context(told["executor"], notebook, document, naming, address=told["address"], title=told["title"],
                          top=Path.cwd())  # fmt: skip
    names = who.names({})
    journal = Journal(execution_folder(execution))
    journal.append("start", **opening(execution, **who.opening(names), parent=None, **own))
    journal.append("names", experiment=names[0], run_name=names[1])
    journal.append("params", values=told["parameters"])
    with contextlib.suppress(OSError):  # a full disk
        write_atomically(journal.folder / "notebook.json", json.dumps(secretless(document)))
    return journal


def _close(journal: Journal, cause: str) -> None:
    """End the record, and let it be delivered."""
    journal.append("kernel_end", cause=cause, signal=None)
    journal.close()
    listen, bell = os.pipe()
    start_shipper(journal.folder, listen, os.getpid())
    os.close(listen)
    os.close(bell)

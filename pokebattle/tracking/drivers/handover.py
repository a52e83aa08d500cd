"""What a program that drives a notebook (papermill, pytest) tells about the execution: what only it can know."""

import contextlib
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pokebattle.tracking import context, processes
from pokebattle.tracking.cells import without_secrets
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


@guarded
def refuse(execution: str, told: dict[str, Any], error: BaseException, naming: dict[str, Any]) -> None:
    """Make a run of an execution whose kernel was not started, or has noted nothing, named by ``naming``."""
    document = without_secrets(told["document"])
    notebook = Path(told["notebook"]) if told["notebook"] else None
    cells = document.get("cells", [])  # the injected one holds what was refused
    cells = [cell for cell in cells if "injected-parameters" not in cell.get("metadata", {}).get("tags", [])]
    who = context.Context(told["executor"], notebook, {**document, "cells": cells}, naming)
    names = who.names({})
    journal = Journal(execution_folder(execution))
    journal.append("start", **opening(execution, **who.opening(names), parent=None))
    journal.append("names", experiment=names[0], run_name=names[1])
    journal.append("params", values=told["parameters"])
    with contextlib.suppress(OSError):  # a full disk
        write_atomically(journal.folder / "notebook.json", json.dumps(secretless(who.document)))
    journal.append("driver_end", error=type(error).__name__, message=str(error)[:2000])
    died = type(error).__name__ == "DeadKernelError" or str(error).startswith("Kernel died")  # so says nbclient
    journal.append("kernel_end", cause=NEVER_RAN if died else "no kernel was started", signal=None)
    journal.close()
    listen, bell = os.pipe()
    start_shipper(execution_folder(execution), listen, os.getpid())
    os.close(listen)
    os.close(bell)

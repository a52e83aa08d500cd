"""pytest plugin for notebooks that nbval tests: it passes the notebook to the kernel, and differing outputs to the run.

pytest loads it through its entry-point group; it does nothing in test runs without notebooks.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

KERNELS: dict[Any, str] = {}  # nbval's file -> execution id


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_setup(item: Any) -> Iterator[None]:
    """Write a file that describes notebook and execution for a kernel, before nbval starts it.

    Parameters
    ----------
    item : pytest.Item
    """
    file = item.parent
    if type(item).__name__ != "IPyNbCell" or file.kernel is not None:
        yield
        return
    from nbtrack import env_vars
    from nbtrack.executors import handover
    from nbtrack.notebook_context import UNTRACKED

    capture = item.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():  # so that messages are visible
        os.environ[env_vars.HANDOVER] = _hand_over(file)
    tracked = os.environ[env_vars.HANDOVER] != UNTRACKED
    yield
    os.environ.pop(env_vars.HANDOVER, None)
    if tracked and file.kernel is not None:
        file.addfinalizer(lambda: handover.finish(KERNELS.pop(file)))


def _hand_over(file: Any) -> str:
    """Return the value of `env_vars.HANDOVER` for the kernel that nbval will start."""
    from nbtrack.cells import wants_tracking
    from nbtrack.executions import new_execution_id
    from nbtrack.executors import handover
    from nbtrack.notebook_context import UNTRACKED
    from nbtrack.settings import enabled

    if not (enabled() and wants_tracking(file.nb)):
        return UNTRACKED
    execution = KERNELS[file] = new_execution_id()
    context = {
        "executor": "nbval",
        "notebook": str(Path(str(file.path))),
        "execution": execution,
        "parameters": {},
        "document": file.nb,
    }
    return handover.hand_over(execution, context)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Iterator[None]:
    """Record a failed comparison in the execution's journal while its kernel is still alive.

    Parameters
    ----------
    item : pytest.Item
    call : pytest.CallInfo
    """
    yield
    execution = KERNELS.get(item.parent)
    if execution is None or call.when != "call" or call.excinfo is None:
        return
    if call.excinfo.errisinstance(pytest.skip.Exception):
        return
    from nbtrack.cells import ANSI, is_untracked
    from nbtrack.executions import execution_folder
    from nbtrack.journal import append_event

    message = ANSI.sub("", str(call.excinfo.value))
    if is_untracked(item.cell.source):
        message = "the outputs differ from the stored ones"
    append_event(execution_folder(execution), "mismatch", cell=item.cell_num, message=message[:20_000])

"""Deliver what a cell has logged before it starts another process, which may read it from the server."""

import _posixsubprocess
import contextlib
import functools
import os
import subprocess
from collections.abc import Callable
from typing import Any

from nbtrack.kernel.execution import Execution


def install(current: Callable[[], Execution | None]) -> None:
    """Wrap all functions that start a process.

    Parameters
    ----------
    current : callable
        Returns the active execution, or None.
    """

    def deliver() -> None:
        with contextlib.suppress(Exception):
            if execution := current():
                execution.deliver()

    def after_delivery(start: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(start)
        def call(*args: Any, **kwargs: Any) -> Any:
            deliver()
            return start(*args, **kwargs)

        return call

    os.register_at_fork(before=deliver)
    os.posix_spawn = after_delivery(os.posix_spawn)
    _posixsubprocess.fork_exec = after_delivery(_posixsubprocess.fork_exec)
    subprocess._fork_exec = _posixsubprocess.fork_exec  # type: ignore[attr-defined]

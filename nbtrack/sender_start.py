"""Write the first event of an execution's journal, and start its sender process."""

import _thread
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nbtrack import processes
from nbtrack.local_ids import new_local_id
from nbtrack.settings import is_local, tracking_uri
from nbtrack.terminal import log_fd

NEVER_RAN = "the kernel ended before its first cell"

# The sender needs neither site-packages nor the user's environment: 20 ms to start, 10 MB.
PACKAGE_ROOT = str(Path(__file__).parents[1])
SENDER = f"import sys; sys.path.insert(0, {PACKAGE_ROOT!r}); from nbtrack.sender.process import main; main()"
DRAINER = (
    f"import os, sys; os.umask(0o077); os.nice(5); sys.path.insert(0, {PACKAGE_ROOT!r}); "
    "from nbtrack.spool import drain_until_empty; drain_until_empty()"
)


def start_sender(folder: Path, listen: int, kernel: int, ended: Callable[[], None] = lambda: None) -> None:
    """Start the sender, the detached process that delivers a journal until the pipe ``listen`` closes.

    Parameters
    ----------
    folder : Path
        The execution's folder in the spool.
    listen : int
        File descriptor of the pipe's reading end.
    kernel : int
        Process id of the kernel.
    ended : callable, optional
        Called in a thread when the sender has ended.
    """
    command = [sys.executable, "-I", "-S", "-c", SENDER, str(folder), str(listen), str(kernel)]
    _detached(command, ended, pass_fds=(listen,), stderr=log_fd())


def start_drainer() -> None:
    """Start the detached process that delivers executions whose kernels have ended."""
    command = [sys.executable, "-I", "-S", "-c", DRAINER]
    _detached(command, stderr=subprocess.DEVNULL)


def _detached(command: list[str], ended: Callable[[], None] = lambda: None, **options: Any) -> None:
    """Start a process that this one's end and its terminal's signals do not affect."""
    null = subprocess.DEVNULL
    child = subprocess.Popen(command, start_new_session=True, cwd="/", stdin=null, stdout=null, **options)
    _thread.start_new_thread(_wait, (child, ended))  # not a thread that cells can see or count


def _wait(child: "subprocess.Popen[bytes]", ended: Callable[[], None]) -> None:
    """Wait until a process has ended, so that it does not remain as a zombie, and report it."""
    with contextlib.suppress(ChildProcessError):  # a cell has already waited for all child processes
        child.wait()
    ended()


def opening(execution_id: str, **fields: Any) -> dict[str, Any]:
    """Return the first event of a journal: who executes what, and the local ids of the future run.

    Parameters
    ----------
    execution_id : str
    **fields
        More fields of the event.
    """
    uri = tracking_uri()
    ids = {name: new_local_id() for name in ("run", "root", "experiment_token")}
    return {
        "execution": execution_id,
        "uri": uri,
        "local_server": is_local(uri),
        **ids,
        "kernel": processes.record(os.getpid()),
        "prefix": sys.prefix,
        **fields,
    }

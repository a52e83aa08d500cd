"""Begin an execution: the first event of its journal, and the sender that delivers it."""

import _thread
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from nbtrack import processes
from nbtrack.ids import new_local_id
from nbtrack.journal import BELL
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
REPLACED = (1.5, 30.0)  # seconds until a sender that died is replaced, and the longest pause between two attempts


_latest: dict[Path, int] = {}  # process id of the last sender that this process started for an execution


def start_sender(folder: Path, listen: int, kernel: int) -> None:
    """Start the sender, the detached process that delivers a journal until the pipe ``listen`` closes.

    Parameters
    ----------
    folder : Path
        The execution's folder in the spool.
    listen : int
        File descriptor of the pipe's reading end.
    kernel : int
        Process id of the kernel.
    """
    command = [sys.executable, "-I", "-S", "-c", SENDER, str(folder), str(listen), str(kernel)]
    child = _detached(command, pass_fds=(listen,), stderr=log_fd())
    _latest[folder] = child.pid
    _thread.start_new_thread(_replace, (child, folder, os.getpid()))  # not a thread that cells can see or count


def _replace(child: "subprocess.Popen[bytes]", folder: Path, kernel: int) -> None:
    """Replace a sender that dies, even if its kernel writes nothing: the signal starts a new one."""
    from nbtrack.kernel.execution import current  # here, as that module imports this one

    with contextlib.suppress(ChildProcessError):  # a cell has already waited for all child processes
        child.wait()
    pause = REPLACED[0]
    while _latest.get(folder) == child.pid and os.getpid() == kernel:
        time.sleep(pause)
        pause = min(pause * 1.5, REPLACED[1])
        execution = current()
        if execution is None or execution.journal.folder != folder or not folder.is_dir():
            return
        execution.signal(BELL)


def start_drainer() -> None:
    """Start the detached process that delivers executions whose kernels have ended."""
    command = [sys.executable, "-I", "-S", "-c", DRAINER]
    _detached(command, stderr=subprocess.DEVNULL)


def _detached(command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start a process that this one's end and its terminal's signals do not affect."""
    null = subprocess.DEVNULL
    return subprocess.Popen(command, start_new_session=True, cwd="/", stdin=null, stdout=null, **options)


def opening(execution_id: str, **told: Any) -> dict[str, Any]:
    """Return the first event of a journal: who executes what, and the local ids of the future run.

    Parameters
    ----------
    execution_id : str
    **told
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
        **told,
    }

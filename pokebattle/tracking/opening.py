"""How an execution begins: the first event of its journal, and the process that will ship it."""

import _thread
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pokebattle.tracking import processes
from pokebattle.tracking.ids import new_local_id
from pokebattle.tracking.journal import BELL
from pokebattle.tracking.notice import log_fd
from pokebattle.tracking.settings import is_local, tracking_uri

NEVER_RAN = "the kernel ended before its first cell"

# The shipper needs neither site-packages nor the user's environment: 20 ms to start, 10 MB.
PACKAGE_ROOT = str(Path(__file__).parents[2])
SHIPPER = (
    f"import sys; sys.path.insert(0, {PACKAGE_ROOT!r}); "
    "from pokebattle.tracking.shipping.shipper import main; main()"
)
DRAINER = (
    f"import os, sys; os.umask(0o077); os.nice(5); sys.path.insert(0, {PACKAGE_ROOT!r}); "
    "from pokebattle.tracking.shipping.spool import drain_until_empty; drain_until_empty()"
)
REPLACED = (1.5, 30.0)  # seconds after which a shipper that died is replaced, and at most between two attempts


_latest: dict[Path, int] = {}  # the shipper that this process started last for an execution


def start_shipper(folder: Path, listen: int, kernel: int) -> None:
    """Start the detached process that ships a journal until the pipe ``listen`` closes."""
    command = [sys.executable, "-I", "-S", "-c", SHIPPER, str(folder), str(listen), str(kernel)]
    child = subprocess.Popen(
        command, pass_fds=(listen,), start_new_session=True, cwd="/",
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log_fd(),
    )  # fmt: skip
    _latest[folder] = child.pid
    _thread.start_new_thread(_replace, (child, folder, os.getpid()))  # none that cells see or count


def _replace(child: "subprocess.Popen[bytes]", folder: Path, kernel: int) -> None:
    """See to it that a shipper that dies is replaced although its kernel writes nothing: ringing for it does that."""
    from pokebattle.tracking.kernel.execution import current  # it knows this module

    with contextlib.suppress(ChildProcessError):  # a cell has waited for all children
        child.wait()
    pause = REPLACED[0]
    while _latest.get(folder) == child.pid and os.getpid() == kernel:
        time.sleep(pause)
        pause = min(pause * 1.5, REPLACED[1])
        execution = current()
        if execution is None or execution.journal.folder != folder or not folder.is_dir():
            return
        execution.ring(BELL)


def start_drainer() -> None:
    """Start the detached process that delivers what executions have left whose kernels have ended."""
    command = [sys.executable, "-I", "-S", "-c", DRAINER]
    subprocess.Popen(
        command, start_new_session=True, cwd="/",
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def opening(execution_id: str, **told: Any) -> dict[str, Any]:
    """Return the first event of a journal: who executes what, and the local ids of the run that will be."""
    uri = tracking_uri()
    ids = {name: new_local_id() for name in ("run", "root", "experiment_token")}
    return {"execution": execution_id, "uri": uri, "local_server": is_local(uri), **ids,
            "kernel": processes.record(os.getpid()),
            "prefix": sys.prefix, **told}  # fmt: skip

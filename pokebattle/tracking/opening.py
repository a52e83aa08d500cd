"""How an execution begins: the first event of its journal, and the process that will ship it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pokebattle.tracking import processes
from pokebattle.tracking.ids import new_local_id
from pokebattle.tracking.notice import log_fd
from pokebattle.tracking.settings import is_local, tracking_uri

NEVER_RAN = "the kernel ended before its first cell"

# The shipper needs neither site-packages nor the user's environment: 20 ms to start, 10 MB.
PACKAGE_ROOT = str(Path(__file__).parents[2])
SHIPPER = (
    f"import sys; sys.path.insert(0, {PACKAGE_ROOT!r}); "
    "from pokebattle.tracking.shipping.shipper import main; main()"
)


def start_shipper(folder: Path, listen: int, kernel: int) -> None:
    """Start the detached process that ships a journal until the pipe ``listen`` closes."""
    command = [sys.executable, "-I", "-S", "-c", SHIPPER, str(folder), str(listen), str(kernel)]
    subprocess.Popen(
        command, pass_fds=(listen,), start_new_session=True, cwd="/",
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log_fd(),
    )  # fmt: skip


def opening(execution_id: str, **told: Any) -> dict[str, Any]:
    """Return the first event of a journal: who executes what, and the local ids of the run that will be."""
    uri = tracking_uri()
    ids = {name: new_local_id() for name in ("run", "root", "experiment_token")}
    return {"execution": execution_id, "uri": uri, "local_server": is_local(uri), **ids,
            "kernel": processes.record(os.getpid()),
            "prefix": sys.prefix, **told}  # fmt: skip

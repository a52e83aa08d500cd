"""One execution as the kernel sees it: a journal to write to and the shipper that reads it."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pokebattle.tracking.journal import Journal, execution_folder, new_execution_id, read_json
from pokebattle.tracking.notice import log_fd
from pokebattle.tracking.settings import tracking_uri

# The shipper needs neither site-packages nor the user's environment: 20 ms to start, 10 MB.
PACKAGE_ROOT = str(Path(__file__).parents[2])
SHIPPER = f"import sys; sys.path.insert(0, {PACKAGE_ROOT!r}); from pokebattle.tracking.shipper import main; main()"


class Execution:
    """An execution that has begun.

    Attributes
    ----------
    id : str
        The execution's own id; the run carries it as the tag ``pokebattle.execution``.
    uri : str
        Address of the MLflow server that the run goes to.
    names : tuple of str or None
        Experiment and run name, once they are fixed.
    """

    def __init__(self, start: dict[str, Any], execution_id: str | None = None) -> None:
        self.id = execution_id or new_execution_id()
        self.uri = tracking_uri()
        self.names: tuple[str, str] | None = None
        self.cells = 0
        self.journal = Journal(execution_folder(self.id))
        self.journal.append("start", uri=self.uri, execution=self.id, pid=os.getpid(), **start)
        self._bell = self._start_shipper()

    def _start_shipper(self) -> int:
        """Start the detached process that ships this journal; return the pipe that it listens on.

        The kernel holds the only write end: however it ends, the shipper reads end-of-file.
        """
        listen, bell = os.pipe()
        os.set_blocking(bell, False)
        command = [sys.executable, "-I", "-S", "-c", SHIPPER, str(self.journal.folder), str(listen), str(os.getpid())]
        subprocess.Popen(
            command, pass_fds=(listen,), start_new_session=True, cwd="/",
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log_fd(),
        )  # fmt: skip
        os.close(listen)
        return bell

    def emit(self, kind: str, **fields: Any) -> None:
        """Write one event down and tell the shipper."""
        self.journal.append(kind, **fields)
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._bell, b".")

    def fix_names(self, names: tuple[str, str]) -> None:
        """Fix experiment and run name: from here on the run can be created."""
        self.names = names
        self.emit("names", experiment=names[0], run_name=names[1])

    def run(self, patience: float) -> dict[str, Any]:
        """Return the run that the shipper opened (``run_id``, ``experiment_id``, ``uri``).

        Waits up to ``patience`` seconds while the server may still answer; empty when there is no run.
        """
        deadline = time.monotonic() + patience
        while True:
            record = read_json(self.journal.folder / "run.json")
            if record.get("run_id"):
                return record
            if record.get("away") or time.monotonic() > deadline:
                return {}
            time.sleep(0.02)

    def end(self) -> None:
        """End this execution while the kernel lives on."""
        self.emit("end")
        os.close(self._bell)
        self.journal.close()

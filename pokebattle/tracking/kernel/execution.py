"""One execution as the kernel sees it: a journal to write to and the shipper that reads it."""

import contextlib
import os
import time
from typing import Any

from pokebattle.tracking.journal import BELL, URGENT, Journal, Progress, execution_folder, new_execution_id
from pokebattle.tracking.opening import opening, start_shipper

PATIENCE = 0.25  # seconds that one cell may wait for tracking at a standstill
PROMPT = 0.1  # seconds within which an answer counts as the cell's own call, and the least that a question waits
QUIET = 0.05  # seconds between two rings that are not urgent
RESTART = 1.0  # seconds between two starts of a shipper that was killed

_under_way: "Execution | None" = None


def current() -> "Execution | None":
    """Return the execution that this process is part of; None when nothing is tracked.

    It takes what cells tell mlflow also when its cells are no longer watched: a run without a server has no other way.
    """
    execution = _under_way
    return execution if execution and execution.pid == os.getpid() else None


def go_over_to(execution: "Execution | None") -> None:
    """Make an execution the one that this process is part of; None: there is none any more."""
    global _under_way
    _under_way = execution


class Execution:
    """An execution that has begun.

    Attributes
    ----------
    id : str
        The execution's own id; the run carries it as the tag ``pokebattle.execution``.
    pid : int
        The process that the execution belongs to.
    uri : str
        Address of the MLflow server that the run goes to.
    names : tuple of str or None
        Experiment and run name, once they are fixed.
    progress : Progress
        What the server has taken.
    """

    def __init__(self, start: dict[str, Any], execution_id: str | None = None) -> None:
        self.id, self.pid = execution_id or new_execution_id(), os.getpid()
        self.start = opening(self.id, **start)
        self.uri = str(self.start["uri"])
        self.names: tuple[str, str] | None = None
        self.cells = 0
        self.began = int(time.time() * 1000)
        self.journal = Journal(execution_folder(self.id))
        self.journal.append("start", **self.start)
        self.progress = Progress(self.journal.folder)
        self._patience = PATIENCE
        self._stuck: tuple[int, int] | None = None  # the pulse at which waiting was given up
        self._started = 0.0
        self._bell = -1
        self._rung = 0.0
        self._described: dict[str, str] = {}
        self._start_shipper()

    def _start_shipper(self) -> None:
        """Start the shipper; this process holds the only write end: however it ends, the shipper reads end-of-file."""
        self._started = time.monotonic()
        listen, bell = os.pipe()
        os.set_blocking(bell, False)
        start_shipper(self.journal.folder, listen, os.getpid())
        os.close(listen)
        if self._bell >= 0:
            with contextlib.suppress(OSError):
                os.close(self._bell)
        self._bell = bell

    def emit(self, kind: str, **fields: Any) -> bool:
        """Write one event down and tell the shipper; tell whether there was room for it."""
        kept = self.journal.append(kind, **fields)
        if (now := time.monotonic()) - self._rung > QUIET:
            self._rung = now
            self.ring(BELL)
        return kept

    def describe(self, subject: str, text: str) -> None:
        """Put a paragraph of Markdown on top of the run's page, below those on other subjects."""
        self._described[subject] = text
        self.emit("tags", values={"mlflow.note.content": "\n\n".join(self._described.values())})

    def ring(self, how: bytes) -> None:
        """Tell the shipper that there is something; one that was killed is started again."""
        try:
            os.write(self._bell, how)
        except BlockingIOError:
            pass
        except OSError:  # nobody reads it any more
            if time.monotonic() - self._started > RESTART and self.journal.folder.is_dir():
                self._start_shipper()

    def fix_names(self, names: tuple[str, str]) -> None:
        """Fix experiment and run name: from here on the run can be created."""
        self.names = names
        self.emit("names", experiment=names[0], run_name=names[1])
        self.ring(URGENT)

    def begin_cell(self) -> None:
        """A new cell may wait anew."""
        self._patience = PATIENCE

    # -- what the server said --------------------------------------------------------------------

    def answer(self, token: str) -> dict[str, Any] | None:
        """Return the server's answer (``status``, ``body``) to what was asked as ``token``; None when it takes long."""
        return self._wait(lambda: self.progress.answers.get(token))

    def run(self) -> dict[str, Any]:
        """Return ``run_id``, ``experiment_id``, ``artifact_uri`` of the run; local ones while the server takes long."""
        found = self._wait(lambda: self.progress.facts.get("run")) if self.names else None
        start = self.start
        local = {"run_id": start["run"], "experiment_id": start["experiment_token"],
                 "artifact_uri": f"mlflow-artifacts:/{start['root']}"}  # fmt: skip
        return {"uri": self.uri, **(found or local)}

    @property
    def online(self) -> bool:
        """Whether the server answered the last time it was needed."""
        facts = self.progress.refresh().facts
        return not (facts.get("away") or facts.get("refused")) and self._stuck != self.progress.pulse()

    def settled(self) -> bool:
        """Wait, as long as the server is getting on, until it has all that was written; tell whether it has."""
        end = os.fstat(self.journal.fileno()).st_size
        return bool(self._wait(lambda: self.progress.offset >= end, asked=True))

    def _wait(self, look: Any, asked: bool = False) -> Any:
        """Wait for what ``look`` finds: a cell's waiting is bounded; for a question's answer, while nothing moves."""
        patience = max(PROMPT, self._patience) if asked else self._patience
        self.progress.refresh()
        began = moved = time.monotonic()
        pulse = self.progress.pulse()
        if not (found := look()):
            self.ring(URGENT)
        while not found:
            if not self.online:
                break
            if time.monotonic() - (moved if asked else began) > patience:
                self._patience, self._stuck = 0.0, pulse
                break
            time.sleep(0.002)
            if pulse != (pulse := self.progress.pulse()):
                moved = time.monotonic()
                self.progress.refresh()
            found = look()
        if not asked and (waited := time.monotonic() - began) > PROMPT:
            self._patience -= waited
        return found

    def end(self) -> None:
        """End this execution while the process lives on."""
        self.emit("kernel_end", cause="the process went over to another run", signal=None)
        with contextlib.suppress(OSError):
            os.close(self._bell)
        self.journal.close()

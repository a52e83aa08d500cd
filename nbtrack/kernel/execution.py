"""One execution as the kernel sees it: a journal to write to and the sender that reads it."""

import contextlib
import functools
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Any

from nbtrack.executions import execution_folder, new_execution_id
from nbtrack.journal import BACK, BELL, URGENT, Journal, Progress
from nbtrack.sender_start import opening, start_sender
from nbtrack.server import answers
from nbtrack.tags import DESCRIPTION

PATIENCE = 0.2  # seconds that a write waits for a server, with response times unknown, before it may count as hanging
HURRY = 3  # the same for a server that answers, in multiples of its current response time
BUSIEST = 5.0  # maximum factor by which the load per core extends these waits
LONGEST_WAIT = 10.0  # maximum seconds that a write waits, however slow the server is
FIRST = 2.0  # seconds from the execution's begin for the server's first response, before it may count as hanging
PAUSE = 3.0  # seconds for which a server that has answered before may be silent, before it counts as hanging
ANSWER = 30.0  # seconds that a read waits without any progress
SUSPECT = 10.0  # minimum seconds after which a server that counted as hanging is tried again
REST = 5  # the same in multiples of the time that was waited for it without success
LOOK = 1.0  # minimum seconds between two checks of a server that is away
LOOK_REST = 20  # the same in multiples of the time that the last check took
UNASKED = {"cell_start", "cell_end", "run_status"}  # events that change nothing that a cell may read
QUIET = 0.05  # seconds between two signals that are not urgent
RESTART = 1.0  # seconds between two starts of a sender that was killed
REPLACE = (1.5, 30.0)  # seconds until a sender that has ended is replaced, and the longest pause between two attempts

_under_way: "Execution | None" = None


def current() -> "Execution | None":
    """Return the execution that this process is part of; None if nothing is tracked.

    It receives what cells log with mlflow even after tracking of its cells has failed: while the server is away, no
    other object can record it.
    """
    execution = _under_way
    return execution if execution and execution.pid == os.getpid() else None


def set_current(execution: "Execution | None") -> None:
    """Make an execution the one that this process is part of.

    Parameters
    ----------
    execution : Execution or None
        None if there is no active execution any more.
    """
    global _under_way
    _under_way = execution


class Execution:
    """An execution that has begun.

    Parameters
    ----------
    start : dict
        Fields of the journal's first event.
    execution_id : str, optional
        By default, a new one.

    Attributes
    ----------
    id : str
        The execution's own id; the run has it in the tag ``pokebattle.execution``.
    pid : int
        The process that the execution belongs to.
    uri : str
        Address of the MLflow server that the run goes to.
    names : tuple of str or None
        Experiment and run name, once they are fixed.
    progress : Progress
        What the server has received.

    Raises
    ------
    OSError
        If the journal cannot be created.
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
        self._usual = 0.0  # the server's current response time in seconds
        self._stuck: tuple[tuple[int, int], float, float] | None = None  # after a failed wait: pulse, until, patience
        self._looked = 0.0, 0.0  # last failed check of a server that is away: when to check again, seconds waited
        self._asked_to = 0  # journal offset up to which events must be delivered before a read
        self._looking, self._starting = threading.Lock(), threading.Lock()
        self.failed = False  # a cell has failed
        self.started = False  # a cell has started a run
        self.deleted = False  # a cell has deleted the execution's run, so the sender cannot continue
        self.moved_to = ""  # id of the experiment that a cell chose for the run after it was opened
        self._started = self._begun = time.monotonic()
        self._bell = -1
        self._rung = 0.0
        self._senders = 0  # number of senders that were started
        self._described: dict[str, str] = {}
        self._start_sender()

    def _start_sender(self) -> None:
        """Start the sender.

        This process has the only write end of the pipe: however it ends, the sender reads end-of-file.
        """
        self._started = time.monotonic()
        listen, bell = os.pipe()
        os.set_blocking(bell, False)
        self._senders += 1
        start_sender(self.journal.folder, listen, os.getpid(), functools.partial(self._replace, self._senders))
        os.close(listen)
        if self._bell >= 0:
            with contextlib.suppress(OSError):
                os.close(self._bell)
        self._bell = bell

    def _replace(self, ended: int) -> None:
        """Replace the sender with this number, which has ended, even if the kernel writes nothing: signal starts it."""
        pause = REPLACE[0]
        while self._senders == ended and os.getpid() == self.pid:
            time.sleep(pause)
            pause = min(pause * 1.5, REPLACE[1])
            if current() is not self or not self.journal.folder.is_dir():
                return
            self.signal(BELL)

    def emit(self, kind: str, **fields: Any) -> bool:
        """Write one event and signal the sender; return whether there was room for it.

        Parameters
        ----------
        kind : str
        **fields
            The event's fields.
        """
        kept = self.journal.append(kind, **fields)
        if kind not in UNASKED:
            self._asked_to = os.fstat(self.journal.fileno()).st_size
        if (now := time.monotonic()) - self._rung > QUIET:
            self._rung = now
            self.signal(BELL)
        return kept

    def describe(self, subject: str, text: str) -> None:
        """Add a paragraph to the run's description, below those about other subjects.

        Parameters
        ----------
        subject : str
            A later paragraph about the same subject replaces the earlier one.
        text : str
            Markdown.
        """
        self._described[subject] = text
        self.emit("tags", values={DESCRIPTION: "\n\n".join(self._described.values())})

    def signal(self, how: bytes) -> None:
        """Signal the sender; start it again if it was killed.

        Parameters
        ----------
        how : bytes
            `BELL`, `URGENT` or `BACK`.
        """
        try:
            os.write(self._bell, how)
        except BlockingIOError:
            pass
        except OSError:  # the sender has ended
            with self._starting:  # several threads may notice it
                if time.monotonic() - self._started > RESTART and self.journal.folder.is_dir():
                    self._start_sender()

    def freeze_names(self, names: tuple[str, str]) -> None:
        """Fix experiment and run name: from here on the run can be created.

        Parameters
        ----------
        names : tuple of (str, str)
        """
        self.names = names
        self.emit("names", experiment=names[0], run_name=names[1])
        self.signal(URGENT)

    def owns(self, run_id: str) -> bool:
        """Return whether an id is that of the execution's run.

        Parameters
        ----------
        run_id : str
            The server's id or a local one.
        """
        return run_id in {self.start["run"], self.progress.ids.get(self.start["run"])}

    def is_in_experiment(self, experiment_id: str) -> bool:
        """Return whether the execution's run is in an experiment.

        Parameters
        ----------
        experiment_id : str
            The server's id or a local one.
        """
        own = str(self.run()["experiment_id"])
        return experiment_id in {own, self.progress.ids.get(own)}

    def move(self, experiment_id: str, name: str) -> None:
        """Move the run to another experiment, which the cells chose before they started a run or logged anything.

        Parameters
        ----------
        experiment_id : str
        name : str
        """
        if self.started or self.moved_to or experiment_id == self.run()["experiment_id"]:
            return
        self.moved_to = experiment_id
        self.emit("experiment", experiment_id=experiment_id, name=name)
        self.signal(URGENT)

    # -- the server's responses --------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Return ``run_id``, ``experiment_id`` and ``artifact_uri`` of the run; local ones while the server is slow."""
        opened = self._wait(self._opened_run, self.write_timeout) if self.names else None
        start = self.start
        local = {
            "run_id": start["run"],
            "experiment_id": self.moved_to or start["experiment_token"],
            "artifact_uri": f"mlflow-artifacts:/{start['root']}",
        }
        return {"uri": self.uri, **(opened or local)}

    def _opened_run(self) -> dict[str, Any] | None:
        run: dict[str, Any] | None = self.progress.facts.get("run")
        moved_to = self.progress.ids.get(self.moved_to, self.moved_to)
        return run if run and moved_to in ("", run["experiment_id"]) else None

    @property
    def write_timeout(self) -> float:
        """Seconds that a write waits for the server before it is checked whether the server hangs."""
        busy = min(max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)), BUSIEST)
        usual = self._usual or self.progress.facts.get("took", 0.0)
        return min(max(PATIENCE, HURRY * usual) * busy, LONGEST_WAIT)

    def answered(self, seconds: float) -> None:
        """Record that the server has answered a request of this process.

        Parameters
        ----------
        seconds : float
            How long it took.
        """
        self._usual, self._stuck = max(seconds, 0.8 * self._usual), None

    def hangs(self) -> bool:
        """Return whether further waiting is useless: the sender has ended, or the server answers no request at all.

        On a busy machine, or behind a lock in its database, a working server can take long for one response.
        """
        began = time.monotonic()
        has_answered = self._usual or "took" in self.progress.facts
        longest = max(self.write_timeout, PAUSE if has_answered else self._begun + FIRST - began)
        if not self._is_listened_to() or not answers(self.uri, longest):
            return True
        if not self._usual:
            self._usual = time.monotonic() - began
        return False

    def _is_listened_to(self) -> bool:
        pipe = select.poll()
        pipe.register(self._bell, 0)
        return not pipe.poll(0)

    def record_timeout(self, patience: float, began: float) -> None:
        """Record a wait without success.

        Until the server makes progress, or a while has passed, no call waits as long again.

        Parameters
        ----------
        patience : float
            Seconds that the caller was prepared to wait without progress.
        began : float
            When the wait began, on the monotonic clock.
        """
        now = time.monotonic()
        self._stuck = self.progress.pulse(), now + max(SUSPECT, REST * (now - began)), patience

    @property
    def refused(self) -> bool:
        """Whether the server answers but accepts nothing of this execution, so that no event will arrive."""
        return bool(self.progress.facts.get("refused"))

    def is_away(self) -> bool:
        """Return whether the sender's last attempt found no server."""
        with self._looking:
            return bool(self.progress.refresh().facts.get("away"))

    def recheck_server(self, is_well: Callable[[float], bool], patience: float) -> None:
        """Check whether a server that was away works again, and wait for the sender then.

        Without this signal, the sender retries less and less often.

        Parameters
        ----------
        is_well : callable
            Takes a timeout in seconds and returns whether the server works.
        patience : float
            Seconds that the caller may wait for the server's answer.
        """
        began = moved = time.monotonic()
        until, waited = self._looked
        patience = min(patience, PAUSE)
        if not self.is_away() or (began < until and patience <= waited):
            return
        if is_well(patience):
            self.signal(BACK)
            pulse = self.progress.pulse()
            while self.is_away() and time.monotonic() - moved < PAUSE:
                time.sleep(0.002)
                if pulse != (pulse := self.progress.pulse()):
                    moved = time.monotonic()
        if self.is_away():
            now = time.monotonic()
            self._looked = now + max(LOOK, LOOK_REST * (now - began)), patience

    @property
    def recorded_until(self) -> int:
        """The journal's offset after the last event on which a read may depend."""
        return self._asked_to

    def may_answer_within(self, patience: float) -> bool:
        """Return whether the server may answer within a time; an unsuccessful shorter wait proves nothing.

        Parameters
        ----------
        patience : float
            Seconds.
        """
        if self.is_away():
            return False
        if self._stuck and (self._stuck[0] != self.progress.pulse() or time.monotonic() > self._stuck[1]):
            self._stuck = None
        return self._stuck is None or self._stuck[2] < patience

    def wait_until_received(self, patience: float = PATIENCE) -> bool:
        """Wait until the server has received every event on which a read may depend.

        Parameters
        ----------
        patience : float
            Maximum seconds without progress.

        Returns
        -------
        bool
            Whether it has received them, or refuses the execution.
        """
        end = self._asked_to
        return bool(self._wait(lambda: self.progress.offset >= end or self.refused, patience))

    def deliver(self) -> None:
        """Wait until the server has received the events, at most as long as a write waits.

        Other processes, which do not wait, can then see them.
        """
        if not self._starting.locked():  # starting the sender also starts a process
            self.wait_until_received(self.write_timeout)

    def _wait(self, look: Callable[[], Any], patience: float) -> Any:
        """Wait for the result of ``look``, as long as the server makes progress."""
        if not (result := look()) and self.may_answer_within(patience) and not (result := look()):
            self.signal(URGENT)
            began = moved = time.monotonic()
            pulse = self.progress.pulse()
            while not (result or self.refused) and self.may_answer_within(patience):
                if time.monotonic() - moved > patience:
                    if time.monotonic() - began > LONGEST_WAIT or self.hangs():
                        self.record_timeout(patience, began)
                        break
                    moved = time.monotonic()
                time.sleep(0.002)
                if pulse != (pulse := self.progress.pulse()):
                    moved = time.monotonic()
                result = look()
        return result

    def end(self) -> None:
        """End this execution while the process continues."""
        self.emit("kernel_end", cause="the process began another run", signal=None)
        with contextlib.suppress(OSError):
            os.close(self._bell)
        self.journal.close()

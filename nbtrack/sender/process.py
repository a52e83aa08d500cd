"""The sender: the process beside a kernel that turns its journal into a run.

It creates the run as soon as the server answers, delivers the events that are added to the journal, and closes the run
when the kernel has ended, for whatever reason. What the server does not accept in time waits in the spool, and one
sender stays to drain it. It is started with ``python -I -S``: standard library only.
"""

import os
import select
import sys
import threading
import time
from pathlib import Path
from typing import Any

from nbtrack import artifact_stores, processes, spool
from nbtrack.journal import BACK, BELL, URGENT, append_event, read_events
from nbtrack.mlflow_rest import ServerError
from nbtrack.sender.journal_reader import SCRIPT
from nbtrack.sender.queue_items import Batch
from nbtrack.sender.run_writer import HEARTBEAT, RunWriter
from nbtrack.sender.sender import ServerRefusesError
from nbtrack.settings import server_is_starting
from nbtrack.tags import SEEN
from nbtrack.terminal import say

DRIVER_PATIENCE = 15.0  # seconds that papermill or pytest may need to report how they ended, once the kernel is gone
PACE = 1.0  # seconds between deliveries for which no cell waits, as each takes processor time from the cells
TICK = 1.0  # seconds without a signal after which the kernel is checked
PRINTS_ADDRESS = {"jupyterlab", "vscode", SCRIPT}  # executors whose run's address the sender prints, as no driver does
PARTING = 5.0  # seconds after the kernel's end in which the terminal may still be used


def main() -> None:
    """Deliver the journal in ``argv[1]`` until the kernel ``argv[3]`` ends, signalled by the pipe ``argv[2]``."""
    os.umask(0o077)
    folder, listen, kernel = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    start = next((event for _, _, event in read_events(folder)), {})
    with spool.locked(folder / "lock") as got:
        if got and start:
            SenderProcess(folder, start, kernel).serve(listen)
    spool.drain_until_empty()


class SenderProcess:
    """Delivers one execution.

    Parameters
    ----------
    folder : Path
        The execution's folder, which the caller has locked.
    start : dict
        The journal's first event.
    kernel : int
        The kernel's process id; 0 if the sender need not be its child.
    """

    def __init__(self, folder: Path, start: dict[str, Any], kernel: int) -> None:
        self.folder, self.start, self.kernel_pid = folder, start, kernel
        self.writer = RunWriter(folder, start)
        self.kernel = processes.Watch(start["kernel"])
        self.parent = processes.Watch(start["parent"]) if start.get("parent") else None
        self._next_try = 0.0
        self._failures = 0
        self._reported = self._store_checked = False
        self._printed_page = ""  # the run's address that was last printed
        self._refused = False
        self._last_heartbeat = time.monotonic()

    def serve(self, listen: int) -> None:
        """Deliver until the kernel has ended, then close the run.

        Parameters
        ----------
        listen : int
            File descriptor of the pipe from the kernel.
        """
        threading.Thread(target=_leave_with, args=(listen,), daemon=True).start()
        due, pause, looked = 0.0, TICK, False
        while os.getppid() == self.kernel_pid or self.kernel_pid == 0:
            ready, _, _ = select.select([listen], [], [], max(0.0, pause))
            rung = os.read(listen, 65536) if ready else BELL
            if not rung and self._has_ended():
                break
            if not rung:  # the kernel now signals another sender, which this one's lock keeps from the journal
                time.sleep(TICK)
            if not ready and not looked:
                looked = True
                spool.call_drainer()
            if BACK in rung:
                self._next_try = 0.0
            if URGENT in rung or BACK in rung or time.monotonic() >= due:
                self._attempt(self._advance)
                due, pause = time.monotonic() + PACE, TICK
            else:
                pause = due - time.monotonic()
        leave_terminal()
        os.nice(5)  # no cell waits any more, and the next notebook may already run
        self._note_end()
        self._attempt(self.writer.finalize, at_once=True)

    def _has_ended(self) -> bool:
        """Return whether the kernel has ended or switched to another run; wait briefly, as ending takes a moment."""
        deadline = time.monotonic() + TICK
        while processes.state_of(self.start["kernel"]) == "alive":
            reader = self.writer.reader
            unread = (event for _, _, event in read_events(self.folder, reader.read_to))
            if reader.kernel_end or any(event["kind"] == "kernel_end" for event in unread):
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _advance(self) -> None:
        reader = self.writer.reader
        if reader.names and time.monotonic() - self._last_heartbeat > HEARTBEAT:
            self._last_heartbeat = time.monotonic()
            reader.delivery.put(Batch(reader.run, tags={SEEN: str(int(time.time() * 1000))}))
        self.writer.advance()
        if not self._store_checked and (run := reader.delivery.progress.facts.get("run")):
            self._store_checked = True
            if not artifact_stores.is_served(run["artifact_uri"]):
                threading.Thread(target=_look_at, args=(run["artifact_uri"],), daemon=True).start()
        page = self.writer.page() if self.start["executor"] in PRINTS_ADDRESS else ""
        if page and page != self._printed_page:  # it changes if a cell chooses another experiment
            self._printed_page = page
            say(f"MLflow run: {page}")

    def _attempt(self, deliver: Any, at_once: bool = False) -> None:
        """Call ``deliver`` if it is due; if the server does not answer, schedule the next attempt."""
        if self._refused or (not at_once and time.monotonic() < self._next_try):
            return
        try:
            deliver()
            self._failures = 0
        except ServerRefusesError as error:
            self._refused = True
            self._say(f"the MLflow server at {self.writer.uri} refuses this execution ({error})")
        except (OSError, ServerError) as error:
            self._failures += 1
            self._next_try = time.monotonic() + min(spool.RETRY[0] * 1.5 ** (self._failures - 1), 10.0)
            self.writer.away(error)
            if not server_is_starting(self.writer.uri):
                self._say(f"no MLflow server answers at {self.writer.uri} ({error})")
        except Exception as error:  # this execution is lost, but the others can be delivered
            self._refused = True
            self._say(self.writer.undeliverable(error))

    def _say(self, what: str) -> None:
        if not self._reported:
            self._reported = True
            what_runs = "script" if self.start["executor"] == SCRIPT else "notebook"
            say(
                f"{what}; the {what_runs} continues, and its record waits in {self.folder} (`python -m nbtrack doctor`)"
            )

    def _note_end(self) -> None:
        """Record how the kernel ended, and wait for its driver's report."""
        cause, signal = self.kernel.cause()
        parent_ended = self.parent is not None and processes.state_of(self.parent.identity) == "ended"
        parent_cause = self.parent.cause()[0] if self.parent and parent_ended else ""
        append_event(
            self.folder, "kernel_end", cause=cause, signal=signal, parent_ended=parent_ended, parent_cause=parent_cause
        )
        driver = self.start.get("driver")
        if not driver or self.writer.reader.driver_end:
            return
        deadline, read_to = time.monotonic() + DRIVER_PATIENCE, self.writer.reader.read_to
        while time.monotonic() < deadline and processes.state_of(driver) == "alive":
            for _, offset, event in read_events(self.folder, read_to):
                if event["kind"] == "driver_end":
                    return
                read_to = offset
            time.sleep(0.05)


def _look_at(artifact_uri: str) -> None:
    """Print at the start if artifacts cannot be stored from this machine."""
    if why := artifact_stores.problem(artifact_uri):
        say(f"artifacts cannot be delivered: {why}; they wait here (`python -m nbtrack doctor`)")


def _leave_with(listen: int) -> None:
    """Release the terminal soon after the kernel's end, even while waiting for a server that never answers."""
    hung_up = select.poll()
    hung_up.register(listen, 0)
    hung_up.poll()
    time.sleep(PARTING)
    leave_terminal()


def leave_terminal() -> None:
    """Release the terminal: a program that waits for the end of papermill's output must not wait for the sender."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)


if __name__ == "__main__":
    main()

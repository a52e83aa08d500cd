"""The process beside a kernel that turns its journal into a run.

It opens the run as soon as the server answers, ships what the journal gains, and closes the run when the kernel has
ended, however it ended. What the server does not take in time waits in the spool, and one shipper stays to drain it. It
is started with ``python -I -S``: standard library only.
"""

import os
import select
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pokebattle.tracking import processes
from pokebattle.tracking.journal import BACK, BELL, URGENT, append_event, read_events
from pokebattle.tracking.notice import say
from pokebattle.tracking.settings import server_is_starting
from pokebattle.tracking.shipping import destination, spool
from pokebattle.tracking.shipping.delivery import RefusedError
from pokebattle.tracking.shipping.items import Batch
from pokebattle.tracking.shipping.rest import ServerError
from pokebattle.tracking.shipping.settlement import HEARTBEAT, Settlement
from pokebattle.tracking.shipping.story import SCRIPT, SEEN

DRIVER_PATIENCE = 15.0  # seconds that papermill or pytest may need to say how they ended, once the kernel is gone
PACE = 1.0  # seconds between two deliveries that nobody waits for: each takes processor time from the cells
TICK = 1.0  # seconds after which the kernel is looked for although nothing was heard
TOLD_HERE = {"jupyterlab", "vscode", SCRIPT}  # whom no driver tells where the run is
PARTING = 5.0  # seconds after the kernel's end in which the terminal may still be told something


def main() -> None:
    """Ship the journal in ``argv[1]`` until the kernel ``argv[3]`` ends, heard on the pipe ``argv[2]``."""
    os.umask(0o077)
    folder, listen, kernel = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    start = next((event for _, _, event in read_events(folder)), {})
    with spool.locked(folder / "lock") as got:
        if got and start:
            Shipper(folder, start, kernel).serve(listen)
    spool.drain_until_empty()


class Shipper:
    """Ships one execution."""

    def __init__(self, folder: Path, start: dict[str, Any], kernel: int) -> None:
        self.folder, self.start, self.kernel_pid = folder, start, kernel
        self.settlement = Settlement(folder, start)
        self.kernel = processes.Watch(start["kernel"])
        self.parent = processes.Watch(start["parent"]) if start.get("parent") else None
        self._next_try = 0.0
        self._failures = 0
        self._said = self._looked = False
        self._told = ""  # the run's address, once the terminal has it
        self._refused = False
        self._seen = time.monotonic()

    def serve(self, listen: int) -> None:
        """Ship until the kernel has ended, then settle the run."""
        threading.Thread(target=_leave_with, args=(listen,), daemon=True).start()
        due, pause, looked = 0.0, TICK, False
        while os.getppid() == self.kernel_pid or self.kernel_pid == 0:
            ready, _, _ = select.select([listen], [], [], max(0.0, pause))
            rung = os.read(listen, 65536) if ready else BELL
            if not rung and self._has_ended():
                break
            if not rung:  # the kernel has begun to ring for another shipper, which this one kept from the journal
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
        os.nice(5)  # nobody waits any more, and the next notebook may run already
        self._note_end()
        self._attempt(self.settlement.settle, at_once=True)

    def _has_ended(self) -> bool:
        """Tell whether the kernel has ended, or has gone over to another run; its end takes a moment."""
        deadline = time.monotonic() + TICK
        while processes.state_of(self.start["kernel"]) == "alive":
            story = self.settlement.story
            unread = (event for _, _, event in read_events(self.folder, story.read_to))
            if story.kernel_end or any(event["kind"] == "kernel_end" for event in unread):
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _advance(self) -> None:
        story = self.settlement.story
        if story.names and time.monotonic() - self._seen > HEARTBEAT:
            self._seen = time.monotonic()
            story.delivery.put(Batch(story.run, tags={SEEN: str(int(time.time() * 1000))}))
        self.settlement.advance()
        if not self._looked and (run := story.delivery.progress.facts.get("run")):
            self._looked = True
            if not destination.is_served(run["artifact_uri"]):
                threading.Thread(target=_look_at, args=(run["artifact_uri"],), daemon=True).start()
        page = self.settlement.page() if self.start["executor"] in TOLD_HERE else ""
        if page and page != self._told:  # a cell may choose another experiment
            self._told = page
            say(f"MLflow run: {page}")

    def _attempt(self, deliver: Any, at_once: bool = False) -> None:
        """Deliver if it is time to; a server that is away is asked again later."""
        if self._refused or (not at_once and time.monotonic() < self._next_try):
            return
        try:
            deliver()
            self._failures = 0
        except RefusedError as error:
            self._refused = True
            self._say(f"the MLflow server at {self.settlement.uri} refuses this execution ({error})")
        except (OSError, ServerError) as error:
            self._failures += 1
            self._next_try = time.monotonic() + min(spool.RETRY[0] * 1.5 ** (self._failures - 1), 10.0)
            self.settlement.away(error)
            if not server_is_starting(self.settlement.uri):
                self._say(f"no MLflow server answers at {self.settlement.uri} ({error})")
        except Exception as error:  # this one is lost to us, but not the spool behind it
            self._refused = True
            self._say(self.settlement.undeliverable(error))

    def _say(self, what: str) -> None:
        if not self._said:
            self._said = True
            what_runs = "script" if self.start["executor"] == SCRIPT else "notebook"
            say(f"{what}; the {what_runs} goes on, its record waits in {self.folder} (`python -m pokebattle doctor`)")

    def _note_end(self) -> None:
        """Write down how the kernel ended, and wait for what its driver has to say."""
        cause, signal = self.kernel.cause()
        parent_ended = self.parent is not None and processes.state_of(self.parent.identity) == "ended"
        parent_cause = self.parent.cause()[0] if self.parent and parent_ended else ""
        append_event(self.folder, "kernel_end", cause=cause, signal=signal, parent_ended=parent_ended,
                     parent_cause=parent_cause)  # fmt: skip
        driver = self.start.get("driver")
        if not driver or self.settlement.story.driver_end:
            return
        deadline, read_to = time.monotonic() + DRIVER_PATIENCE, self.settlement.story.read_to
        while time.monotonic() < deadline and processes.state_of(driver) == "alive":
            for _, offset, event in read_events(self.folder, read_to):
                if event["kind"] == "driver_end":
                    return
                read_to = offset
            time.sleep(0.05)


def _look_at(artifact_uri: str) -> None:
    """Say at the start that no artifact can be stored from here."""
    if why := destination.problem(artifact_uri):
        say(f"artifacts cannot be delivered: {why}; they wait here (`python -m pokebattle doctor`)")


def _leave_with(listen: int) -> None:
    """Let go of the terminal soon after the kernel, also while a server that never answers is waited for."""
    hung_up = select.poll()
    hung_up.register(listen, 0)
    hung_up.poll()
    time.sleep(PARTING)
    leave_terminal()


def leave_terminal() -> None:
    """Let go of the terminal: whoever waits for the end of papermill's output must not wait for this process."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)


if __name__ == "__main__":
    main()

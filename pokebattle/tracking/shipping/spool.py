"""All executions of this machine that wait for their server, and who may deliver them.

An execution is delivered by the one process that holds its lock: the shipper beside its kernel, later whoever drains
the spool. Only executions of this host whose kernel has ended are drained; a live one is never touched.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pokebattle.tracking import processes
from pokebattle.tracking.journal import append_event, executions_dir, read_events, read_json
from pokebattle.tracking.opening import start_drainer
from pokebattle.tracking.settings import deliver_to, linger
from pokebattle.tracking.shipping.delivery import RefusedError
from pokebattle.tracking.shipping.rest import ServerError
from pokebattle.tracking.shipping.settlement import Settlement, settle_aside, tidy_up

RETRY = (1.0, 30.0)  # seconds between two attempts to reach a server: at first, at most
KEPT = 300  # executions whose folders are kept, so that `runs` can tell of them


@dataclass
class Waiting:
    """An execution that is not settled.

    ``state`` is ``running``, ``ended``, ``elsewhere`` (another host's), ``refused`` (the server will not take it), with
    ``reason`` saying why it waits, as far as that is known.
    """

    folder: Path
    start: dict[str, Any]
    state: str
    reason: str = ""


def on_their_way(uri: str) -> bool:
    """Tell whether executions that have ended are still being delivered to a server."""
    return any(one.state == "ended" and deliver_to(one.start) == uri for one in waiting())


@contextlib.contextmanager
def locked(file: Path) -> Iterator[bool]:
    """Hold a lock that ends with this process, if nobody else has it; tell whether it was got."""
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:  # a full disk, or the folder is gone
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(handle)


def waiting() -> list[Waiting]:
    """Return the executions that are not settled, oldest first."""
    found = []
    for folder in sorted(executions_dir().glob("*")):
        record = read_json(folder / "run.json")
        if "status" in record or not (folder / "journal.jsonl").is_file():
            continue
        start = next((event for _, _, event in read_events(folder)), {})
        if start.get("kind") != "start" or "kernel" not in start:
            continue
        alive = processes.state_of(start["kernel"])
        state = "refused" if record.get("refused") and alive == "ended" else {"alive": "running"}.get(alive, alive)
        found.append(Waiting(folder, start, state, record.get("refused") or record.get("away") or ""))
    return found


def deliver(one: Waiting) -> str:
    """Deliver an execution whose kernel has ended.

    Returns
    -------
    str
        ``delivered``, ``busy`` (another process does it), or why it could not be: ``refused``, ``away``, ``held up``
        (the server is well, and does not take something of this one).
    """
    with locked(one.folder / "lock") as got:
        if not got or not (one.folder / "journal.jsonl").is_file():
            return "busy" if one.folder.is_dir() else "delivered"
        if "status" in read_json(one.folder / "run.json"):
            tidy_up(one.folder)
            return "delivered"
        settlement = Settlement(one.folder, one.start)
        try:
            note_stranded(one)
            settlement.settle()
        except RefusedError as error:
            return f"refused: {error}"
        except (OSError, ServerError) as error:
            settlement.away(error)
            alone = isinstance(error, ServerError) and settlement.delivery.rest.healthy()
            return f"held up: {error}" if alone else f"away: {error}"
        except Exception as error:  # a broken record, an address that is none: the next one is delivered all the same
            return f"refused: {settlement.undeliverable(error)}"
    return "delivered"


def note_stranded(one: Waiting) -> None:
    """Note the end of a kernel whose shipper could not, because it was killed or the machine went down."""
    if any(event["kind"] == "kernel_end" for _, _, event in read_events(one.folder)):
        return
    cause = "the machine was restarted" if processes.rebooted(one.start["kernel"]) else "SIGKILL or loss of power"
    append_event(one.folder, "kernel_end", cause=f"{cause}, found later", signal=None)


def drain(retry_refused: bool = False) -> dict[Path, str]:
    """Deliver every execution whose kernel has ended; return what became of each.

    Those that a server has refused are tried again only on demand.
    """
    took: dict[Path, str] = {}
    away: dict[str, str] = {}
    for one in waiting():
        if one.state != "ended" and not (one.state == "refused" and retry_refused):
            continue
        if (server := one.start["uri"]) in away:  # one attempt a round is enough
            took[one.folder] = away[server]
            continue
        took[one.folder] = deliver(one)
        if took[one.folder].startswith("away"):
            away[server] = took[one.folder]
    return took


def retry_aside() -> dict[Path, str]:
    """Try again what was set aside of executions that are settled; return what became of each."""
    took: dict[Path, str] = {}
    for file in sorted(executions_dir().glob("*/aside.jsonl")):
        folder = file.parent
        with locked(folder / "lock") as got:
            if not got or "status" not in read_json(folder / "run.json"):
                continue
            text = file.read_text("utf-8")
            if '"call"' in text or '"file"' in text:
                took[folder] = settle_aside(folder)
    return took


def drain_until_empty() -> None:
    """Drain until nothing waits; one process for each spool does this, and gives up after a day.

    Whoever finds it busy leaves: the one that drains looks once more after it has let go of the lock.
    """
    root = executions_dir()
    forget_old()
    deadline = time.monotonic() + linger()
    while root.is_dir() and _any_ended():
        with locked(root.parent / "drain.lock") as got:
            if not got:
                return
            drain()
            pause = RETRY[0]
            while _any_ended():
                if time.monotonic() > deadline:
                    return
                time.sleep(pause)
                pause = min(pause * 1.5, RETRY[1])
                drain()


def call_drainer() -> None:
    """Have somebody deliver what a shipper that died with its kernel has left, unless somebody does already."""
    with contextlib.suppress(OSError):
        if executions_dir().is_dir() and _any_stranded():
            start_drainer()


def _any_stranded() -> bool:
    with locked(executions_dir().parent / "drain.lock") as nobody:
        if not nobody:
            return False
        for one in waiting():
            if one.state == "ended":
                with locked(one.folder / "lock") as free:
                    if free:
                        return True
    return False


def _any_ended() -> bool:
    return any(one.state == "ended" for one in waiting())


def forget_old() -> None:
    """Remove all but the latest executions' folders, except those that wait and those that hold what was set aside."""
    for folder in sorted(executions_dir().glob("2*"), reverse=True)[KEPT:]:
        waits = (folder / "journal.jsonl").is_file() and "status" not in read_json(folder / "run.json")
        if not waits and not (folder / "aside.jsonl").is_file():
            shutil.rmtree(folder, ignore_errors=True)

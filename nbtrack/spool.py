"""All executions of this machine that wait for their server, and which process may deliver them.

An execution is delivered by the process that holds its lock: the sender beside its kernel, later any process that
drains the spool. Only executions of this host whose kernel has ended are drained; those with a live kernel are never
touched.
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

from nbtrack import processes
from nbtrack.executions import executions_dir
from nbtrack.files import read_json
from nbtrack.journal import append_event, read_events
from nbtrack.mlflow_rest import ServerError
from nbtrack.sender.run_writer import RunWriter, deliver_aside, tidy_up
from nbtrack.sender.sender import ServerRefusesError
from nbtrack.sender_start import start_drainer
from nbtrack.settings import destination_of, linger

RETRY = (1.0, 30.0)  # seconds between two attempts to reach a server: at first, at most
KEPT = 300  # executions whose folders are kept, so that `runs` can list them


@dataclass
class Waiting:
    """An execution that is not completely delivered.

    Attributes
    ----------
    folder : Path
    start : dict
        The journal's first event.
    state : {"running", "ended", "elsewhere", "refused"}
        ``elsewhere``: another host's; ``refused``: the server does not accept it.
    reason : str
        Why it waits, if known.
    """

    folder: Path
    start: dict[str, Any]
    state: str
    reason: str = ""


def is_delivering(uri: str) -> bool:
    """Return whether executions that have ended still wait for delivery to a server.

    Parameters
    ----------
    uri : str
        The server's address.
    """
    return any(one.state == "ended" and destination_of(one.start) == uri for one in waiting())


@contextlib.contextmanager
def locked(file: Path) -> Iterator[bool]:
    """Acquire a file lock, if it is free, and release it at the end of the ``with`` block or of this process.

    Parameters
    ----------
    file : Path

    Yields
    ------
    bool
        Whether the lock was acquired.
    """
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:  # the disk is full, or the folder is gone
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
    """Return the executions that are not completely delivered, oldest first."""
    executions = []
    for folder in sorted(executions_dir().glob("*")):
        record = read_json(folder / "run.json")
        if "status" in record or not (folder / "journal.jsonl").is_file():
            continue
        start = next((event for _, _, event in read_events(folder)), {})
        if start.get("kind") != "start" or "kernel" not in start:
            continue
        alive = processes.state_of(start["kernel"])
        state = "refused" if record.get("refused") and alive == "ended" else {"alive": "running"}.get(alive, alive)
        executions.append(Waiting(folder, start, state, record.get("refused") or record.get("away") or ""))
    return executions


def deliver(one: Waiting) -> str:
    """Deliver an execution whose kernel has ended.

    Parameters
    ----------
    one : Waiting

    Returns
    -------
    str
        ``delivered``, ``busy`` (another process delivers it), or with a reason ``refused``, ``away`` (no server
        answers) or ``held up`` (the server works, but does not accept an item of this execution now).
    """
    with locked(one.folder / "lock") as got:
        if not got or not (one.folder / "journal.jsonl").is_file():
            return "busy" if one.folder.is_dir() else "delivered"
        if "status" in read_json(one.folder / "run.json"):
            tidy_up(one.folder)
            return "delivered"
        writer = RunWriter(one.folder, one.start)
        try:
            note_stranded(one)
            writer.finalize()
        except ServerRefusesError as error:
            return f"refused: {error}"
        except (OSError, ServerError) as error:
            writer.away(error)
            alone = isinstance(error, ServerError) and writer.delivery.rest.healthy()
            return f"held up: {error}" if alone else f"away: {error}"
        except Exception as error:  # a broken record, an invalid address: must not stop the executions after it
            return f"refused: {writer.undeliverable(error)}"
    return "delivered"


def note_stranded(one: Waiting) -> None:
    """Record the end of a kernel whose sender could not, because it was killed or the machine went down.

    Parameters
    ----------
    one : Waiting
    """
    if any(event["kind"] == "kernel_end" for _, _, event in read_events(one.folder)):
        return
    cause = "the machine was restarted" if processes.rebooted(one.start["kernel"]) else "SIGKILL or loss of power"
    append_event(one.folder, "kernel_end", cause=f"{cause}, found later", signal=None)


def drain(retry_refused: bool = False) -> dict[Path, str]:
    """Deliver every execution whose kernel has ended.

    Parameters
    ----------
    retry_refused : bool
        Also retry executions that a server has refused.

    Returns
    -------
    dict
        Result of `deliver` by folder.
    """
    took: dict[Path, str] = {}
    away: dict[str, str] = {}
    for one in waiting():
        if one.state != "ended" and not (one.state == "refused" and retry_refused):
            continue
        if (server := one.start["uri"]) in away:  # one attempt per server and round is enough
            took[one.folder] = away[server]
            continue
        took[one.folder] = deliver(one)
        if took[one.folder].startswith("away"):
            away[server] = took[one.folder]
    return took


def retry_aside() -> dict[Path, str]:
    """Retry what was set aside of delivered executions; return the result of each by folder."""
    took: dict[Path, str] = {}
    for file in sorted(executions_dir().glob("*/aside.jsonl")):
        folder = file.parent
        with locked(folder / "lock") as got:
            if not got or "status" not in read_json(folder / "run.json"):
                continue
            text = file.read_text("utf-8")
            if '"call"' in text or '"file"' in text:
                took[folder] = deliver_aside(folder)
    return took


def drain_until_empty() -> None:
    """Deliver until nothing waits, for at most `linger` seconds (a day); only one process of a spool does this.

    Other processes return at once: the one that drains checks the spool again after it has released the lock.
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
    """Start a process that delivers what senders that died with their kernels left, unless such a process runs."""
    with contextlib.suppress(OSError):
        if executions_dir().is_dir() and _any_stranded():
            start_drainer()


def _any_stranded() -> bool:
    with locked(executions_dir().parent / "drain.lock") as acquired:
        if not acquired:
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
    """Remove all but the `KEPT` latest executions' folders, except those that wait or contain items set aside."""
    for folder in sorted(executions_dir().glob("2*"), reverse=True)[KEPT:]:
        waits = (folder / "journal.jsonl").is_file() and "status" not in read_json(folder / "run.json")
        if not waits and not (folder / "aside.jsonl").is_file():
            shutil.rmtree(folder, ignore_errors=True)

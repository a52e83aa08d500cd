"""An execution's folder in the spool: what the kernel recorded, and what the server has received of it.

``journal.jsonl`` contains one event per line, ``files/`` the artifacts that cells logged, ``notebook.json`` the
notebook as it was when the execution began. ``progress.jsonl`` is written by the process that delivers; ``run.json``
contains the state of the run, for users and other programs. Standard library only.
"""

import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nbtrack.secrets import Masker
from nbtrack.settings import SPOOL_RESERVE, spool_limit

VITAL = {"start", "names", "cell_start", "cell_end", "shutdown", "driver_end", "kernel_end", "mismatch"}
NAMING = {"start", "names", "call", "artifact", "dataset"}  # their texts are names and addresses, which are not masked
NOT_ENDED = "NOT_ENDED"  # status of a run that the sender ends only if the server still has it as running
# What a kernel signals to its sender: an event was written, a cell waits for it, the server is back.
BELL, URGENT, BACK = b".", b"!", b"+"


def make_private(folder: Path) -> None:
    """Create an execution's folder, readable only for its owner.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    OSError
        If it cannot be created.
    """
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.parent.stat().st_mode & 0o077:
        folder.parent.chmod(0o700)
    folder.mkdir(exist_ok=True, mode=0o700)


def spool_size(folder: Path) -> int:
    """Return the total size of the files below ``folder`` in bytes.

    Parameters
    ----------
    folder : Path
    """
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                size += (Path(parent) / name).stat().st_size
    return size


_masker = Masker({})  # this process's secrets, which another process that delivers may not know


def secretless(value: Any) -> Any:
    """Return a JSON value with the secrets masked that this process's environment contains or contained.

    Parameters
    ----------
    value : object
        JSON value.
    """
    _masker.learn(os.environ)
    return _masker.known(value)


def secrets_known() -> int:
    """Return the number of secrets that this process knows now."""
    _masker.learn(os.environ)
    return len(_masker)


def mask_request(body: Any) -> Any:
    """Return a request body of mlflow's with its secrets masked, as the journal and then the server receive it.

    Parameters
    ----------
    body : object
        JSON body.
    """
    _masker.learn(os.environ)
    masked = _masker.known(body, names=False)
    return _masker.request(masked) if isinstance(masked, dict) else masked


def _line(kind: str, fields: dict[str, Any]) -> bytes:
    """Return one event as a line of the journal, with its time in ms since the epoch."""
    _masker.learn(os.environ)
    if kind == "params":
        _masker.learn(fields["values"])
    event = {"kind": kind, "time": int(time.time() * 1000), **_masker.known(fields, names=kind not in NAMING)}
    return json.dumps(event, default=str, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


class Journal:
    """Append-only writer of one execution's events, safe to use from several threads and processes.

    What cannot be written, because the disk or the spool is full or gone, is dropped and counted: `append` and `stage`
    do not raise in that case. The file with the count is created in advance, so that it can be written even if nothing
    else can.

    Parameters
    ----------
    folder : Path
        The execution's folder; created if missing.

    Raises
    ------
    OSError
        If the journal cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        make_private(folder)
        self.folder = folder
        self._lock = threading.Lock()
        self._file = os.open(folder / "journal.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._tally = os.open(folder / "dropped.json", os.O_WRONLY | os.O_CREAT, 0o600)
        self._step = max(spool_limit() // 64, SPOOL_RESERVE)
        self._measure()
        self._torn = False
        self._staged = 0
        self._dropped = {"events": 0, "bytes": 0}
        self._last: dict[str, Any] = {}
        self._count()

    def _measure(self, present: int = 0) -> None:
        """Measure how much room is left in the spool; ``present`` bytes of the requested size are already in it."""
        left = spool_limit() - spool_size(self.folder.parent) + present
        self._room = self._measured = max(left, SPOOL_RESERVE)

    def _fits(self, size: int, reserve: int, present: int = 0) -> bool:
        """Return whether there is room; every few MB, measure again what other executions have written."""
        if self._room > SPOOL_RESERVE and self._measured - self._room + size > self._step:
            self._measure(present)
        return size <= self._room - reserve

    def append(self, kind: str, **fields: Any) -> bool:
        """Write one event, with the secrets known to this process masked; return whether there was room for it.

        Parameters
        ----------
        kind : str
        **fields
            The event's fields.
        """
        line = _line(kind, fields)
        with self._lock:
            kept = self._write(line, vital=kind in VITAL)
            if kind in {"cell_start", "cell_end"}:
                self._last = {key: fields.get(key) for key in ("cell", "ok")}
            if not kept or (self._dropped["events"] and kind in VITAL):
                self._count()
        return kept

    def _write(self, line: bytes, vital: bool) -> bool:
        reserve = 0 if vital else SPOOL_RESERVE // 2
        if not self._fits(len(line), reserve):
            return self._drop(len(line))
        if self._torn:
            line = b"\n" + line
        done = 0
        try:
            while done < len(line):
                done += os.write(self._file, line[done:])
        except OSError:
            self._torn = self._torn or done > 0
            return self._drop(len(line))
        self._torn = False
        self._room -= done
        return True

    def _drop(self, size: int) -> bool:
        self._dropped["events"] += 1
        self._dropped["bytes"] += size
        return False

    def _count(self) -> None:
        """Overwrite the count in place, which needs no additional disk space."""
        with contextlib.suppress(OSError):
            os.pwrite(self._tally, json.dumps({**self._dropped, "last": self._last}).ljust(200).encode(), 0)

    def stage(self, source: Any) -> str | None:
        """Copy an open binary file (or bytes) into the spool.

        Parameters
        ----------
        source : file object or bytes

        Returns
        -------
        str or None
            The copy's name in ``files/``; None if there was no room.
        """
        with self._lock:
            self._staged += 1
            name = f"{os.getpid()}-{self._staged}"
        target = self.folder / "files" / name
        try:
            target.parent.mkdir(exist_ok=True, mode=0o700)
            with target.open("wb") as file:
                if isinstance(source, bytes):
                    file.write(source)
                else:
                    shutil.copyfileobj(source, file, 1 << 20)
            size = target.stat().st_size
            with self._lock:
                if self._fits(size, SPOOL_RESERVE // 2, present=size):
                    self._room -= size
                    return name
        except OSError:
            size = 0
        with contextlib.suppress(OSError):
            size = size or target.stat().st_size
            target.unlink()
        with self._lock:
            self._drop(size)
            self._count()
        return None

    def fileno(self) -> int:
        """Return the journal's file descriptor."""
        return self._file

    def close(self) -> None:
        """Close the files; `append` must not be called afterwards."""
        os.close(self._file)
        os.close(self._tally)


def append_event(folder: Path, kind: str, **fields: Any) -> None:
    """Write one event to the journal of another process's execution, if the disk and the folder allow it.

    If the last line was cut off by a power failure, it is ended first, so that the event stays readable.

    Parameters
    ----------
    folder : Path
        The execution's folder.
    kind : str
    **fields
        The event's fields.
    """
    line = _line(kind, fields)
    with contextlib.suppress(OSError):
        file = os.open(folder / "journal.jsonl", os.O_RDWR | os.O_APPEND)
        try:
            size = os.fstat(file).st_size
            torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
            os.write(file, b"\n" + line if torn else line)
        finally:
            os.close(file)


def read_events(folder: Path, offset: int = 0) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield the events of a journal from ``offset`` on; an incomplete last line is not read.

    A line that is not a valid event (cut off by a full disk or a power failure) is yielded as an event of kind
    ``torn``.

    Parameters
    ----------
    folder : Path
        The execution's folder.
    offset : int
        Bytes.

    Yields
    ------
    tuple of (int, int, dict)
        Offset of the line, offset of the next line, event.
    """
    try:
        with (folder / "journal.jsonl").open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                began, offset = offset, offset + len(line)
                try:
                    event = json.loads(line)
                    yield began, offset, event if "kind" in event else {"kind": "torn", "time": 0}
                except ValueError:
                    yield began, offset, {"kind": "torn", "time": 0}
    except FileNotFoundError:
        return


class Progress:
    """What the server has received of a journal: written by the sender, read by the kernel.

    Parameters
    ----------
    folder : Path
        The execution's folder.

    Attributes
    ----------
    offset : int
        The journal is on the server up to this byte.
    ids : dict
        The server's id (or artifact location) by local id.
    answers : dict
        The server's response to the creation of an entity, by local id.
    facts : dict
        ``run``, ``away``, ``refused``: the latest of each; ``took``: seconds until the server's first response;
        ``moved``: the offset at which the run was created again in another experiment.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "progress.jsonl"
        self.offset = 0
        self.ids: dict[str, str] = {}
        self.answers: dict[str, dict[str, Any]] = {}
        self.facts: dict[str, Any] = {}
        self._read = 0
        self._torn = False
        self.refresh()

    def refresh(self) -> "Progress":
        """Read the entries that were added since the last call."""
        with contextlib.suppress(OSError), self.file.open("rb") as file:
            file.seek(self._read)
            self._torn = False
            for line in file:
                if not line.endswith(b"\n"):
                    self._torn = True
                    break
                self._read += len(line)
                with contextlib.suppress(ValueError):
                    self._fold(json.loads(line))
        return self

    def _fold(self, entry: dict[str, Any]) -> None:
        self.offset = entry.pop("offset", self.offset)
        self.ids.update(entry.pop("ids", {}))
        self.answers.update(entry.pop("answers", {}))
        self.facts.update(entry)

    def note(self, **entry: Any) -> None:
        """Write an entry; on a full disk it is only kept in memory, and delivering again does no harm.

        Parameters
        ----------
        **entry
            ``offset``, ``ids``, ``answers`` or `facts`.
        """
        line = json.dumps(entry).encode() + b"\n"
        with contextlib.suppress(OSError), self.file.open("ab") as file:
            file.write(b"\n" + line if self._torn else line)
            self._torn = False
        self._fold(entry)

    def beat(self) -> None:
        """Show a waiting kernel that data are being transferred."""
        with contextlib.suppress(OSError):
            os.utime(self.file)

    def pulse(self) -> tuple[int, int]:
        """Return a value that changes whenever there is progress."""
        with contextlib.suppress(OSError):
            stat = self.file.stat()
            return stat.st_size, stat.st_mtime_ns
        return 0, 0

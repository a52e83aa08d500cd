"""Whether a recorded process is still alive, and why one that was watched has ended.

Used by the process beside a kernel, which is not the kernel's parent and so cannot wait for it. Standard library only.
"""

import contextlib
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

READING = 0.2  # seconds that the end of a process is looked for
GONE = "ZXx"  # the states of a process that only waits for its parent to take note
STOPPED = "Tt"  # here the exit code holds the signal that stopped the process
# PIDFD_GET_INFO of linux/pidfd.h: mask and cgroup id, eleven ids, exit code; 64 bytes in its first version.
PIDFD_INFO = struct.Struct("=QQ11Ii")
PIDFD_GET_INFO = 3 << 30 | PIDFD_INFO.size << 16 | 0xFF << 8 | 11
PIDFD_INFO_EXIT = 1 << 3
PIDFD_OPEN = 434  # the system call's number on every architecture that Python is built for
SBIN = "/usr/sbin:/sbin:/usr/bin:/bin"


def identity(pid: int, root: str | Path = "/") -> dict[str, Any]:
    """Return what tells a process from every other one: ``host``, ``boot``, ``pid`` and ``started``.

    Raises
    ------
    ProcessLookupError
        When there is no such process. One that has ended but was not waited for is still there.
    """
    found = _status(pid, root)
    if found is None:
        raise ProcessLookupError(f"no process {pid}")
    return {"host": socket.gethostname(), "boot": _boot(root), "pid": pid, "started": found.started}


def state_of(identity: Mapping[str, Any], root: str | Path = "/") -> str:
    """Return ``alive``, ``ended``, or ``elsewhere`` for a process of another host, of which nothing can be said."""
    if identity["host"] != socket.gethostname():
        return "elsewhere"
    if identity["boot"] != _boot(root):
        return "ended"
    # Containers of one machine share the boot id and may share the host name, but count their own pids. The record of
    # another container can only be told by its start time, and then it reads "ended" although it may be alive there.
    found = _status(identity["pid"], root)
    alive = found is not None and found.started == identity["started"] and found.state not in GONE
    return "alive" if alive else "ended"


def rebooted(identity: Mapping[str, Any], root: str | Path = "/") -> bool:
    """Tell whether this host has been started anew since the process was recorded."""
    return identity["host"] == socket.gethostname() and identity["boot"] != _boot(root)


def record(pid: int, root: str | Path = "/") -> dict[str, Any]:
    """Return the `identity` of a process, and what a `Watch` that may begin only after its end has to know of it.

    That is ``oom``: the file in which its memory cgroup counts out-of-memory kills, and what it counts now; or None.
    """
    counter = oom_counter(pid, root)  # the file, for /proc/PID/cgroup goes with the process
    return identity(pid, root) | {"oom": counter and [str(counter), oom_kills(counter)]}


class Watch:
    """Watches a process so that the cause of its end can be told.

    Parameters
    ----------
    recorded : dict
        As from `record`, of a process of this host. When it has ended by now, the signal that ended it is known only as
        long as its parent has not waited for it.

    Attributes
    ----------
    identity : dict
        Its `identity`.
    pidfd : int or None
        Linux's handle for the process: readable once it has ended, even if a child still holds its pipes.
    """

    def __init__(self, recorded: Mapping[str, Any], root: str | Path = "/") -> None:
        self.root = root
        self.identity = dict(recorded)
        self._oom: tuple[str | None, int | None] = tuple(self.identity.pop("oom", None) or (None, None))
        found = self._status()
        self._shows_code = found is not None and found.shows_code
        self.pidfd = _open_pidfd(recorded["pid"]) if found else None
        if self.pidfd is not None:
            weakref.finalize(self, os.close, self.pidfd)

    def cause(self) -> tuple[str, int | None]:
        """Return why the process has ended, in words, and the signal that ended it, if that is known.

        To be asked once the end has been noticed: of a process that lives on, it says that the cause is unknown.
        """
        code = self._exit_code()
        # The counter is the whole cgroup's: an earlier out-of-memory kill of another process in it, followed by
        # somebody's SIGKILL, would be told wrongly. It counts before the signal is sent, so it is never too late here.
        counter, before = self._oom
        now = oom_kills(counter)
        out_of_memory = before is not None and now is not None and now > before
        if code is None:
            return ("out of memory" if out_of_memory else "the process ended, cause unknown"), None
        number = code & 0x7F
        if not number:
            return f"exit status {code >> 8 & 0xFF}", None
        if number == signal.SIGKILL:
            return ("out of memory" if out_of_memory else "SIGKILL, cause unknown"), number
        try:
            return signal.Signals(number).name, number
        except ValueError:  # a real-time signal
            return f"signal {number}", number

    def _exit_code(self) -> int | None:
        """Return the process's status as ``wait`` would, or None when nothing tells it any more.

        /proc has it from the first moments of the end until the parent has waited; from then on the pidfd has it,
        since Linux 6.15. /proc is read without a pause until the process has ended for `state_of` too.
        """
        deadline = time.monotonic() + READING
        code = None
        while True:
            found = self._status()
            gone = found is None or found.state in GONE
            if found and found.state not in STOPPED and (found.exit_code or (gone and self._shows_code)):
                code = found.exit_code
            if gone or time.monotonic() > deadline:
                return code if code is not None else self._reaped_code()

    def _status(self) -> "_Status | None":
        found = _status(self.identity["pid"], self.root)
        return None if found and found.started != self.identity["started"] else found  # the pid is another's by now

    def _reaped_code(self) -> int | None:
        if self.pidfd is None:
            return None
        buffer = bytearray(PIDFD_INFO.size)
        struct.pack_into("=Q", buffer, 0, PIDFD_INFO_EXIT)
        try:
            fcntl.ioctl(self.pidfd, PIDFD_GET_INFO, buffer)
        except OSError:  # an older Linux
            return None
        mask, *_, code = PIDFD_INFO.unpack(buffer)
        return code if mask & PIDFD_INFO_EXIT else None


def _open_pidfd(pid: int) -> int | None:
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # an older Linux, or a container that forbids it
        return None
    except AttributeError:  # the Pythons of conda and uv are built for a C library that has no such function
        import ctypes

        found: int = ctypes.CDLL(None).syscall(PIDFD_OPEN, pid, 0)
        return found if found >= 0 else None


def oom_counter(pid: int, root: str | Path = "/") -> Path | None:
    """Return the file in which the memory cgroup of a process counts out-of-memory kills, if it can be read."""
    return next((file for file in _counter_files(pid, Path(root)) if oom_kills(file) is not None), None)


def oom_kills(counter: str | Path | None) -> int | None:
    """Return what the file from `oom_counter` counts, or None when it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(counter).read_text().splitlines() if counter else ():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None


def _counter_files(pid: int, root: Path) -> Iterator[Path]:
    try:
        lines = (root / "proc" / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return
    mount = root / "sys" / "fs" / "cgroup"
    for _, controllers, path in sorted(line.split(":", 2) for line in lines if line.count(":") >= 2):  # v2 is line 0
        # In a container the path can be the host's, and the mount is the container's own cgroup: then its root counts.
        own = Path(path.lstrip("/"))
        if not controllers:  # v2; a cgroup without a memory controller is counted in the nearest one above that has it
            folders = [place / part for place in (mount, mount / "unified") for part in (own, *own.parents)]
            yield from (folder / "memory.events" for folder in folders)
        elif "memory" in controllers.split(","):
            yield from (mount / "memory" / part / "memory.oom_control" for part in (own, Path()))


class _Status(NamedTuple):
    state: str
    started: int | str
    exit_code: int = 0  # until it ends
    shows_code: bool = False  # else a zero means nothing


def _status(pid: int, root: str | Path) -> _Status | None:
    try:
        stat = Path(root, "proc", str(pid), "stat").read_bytes()
    except OSError:
        return None if Path(root, "proc").exists() else _status_by_ps(pid)
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name before may hold anything; then comes field 3
    # Who may not see the exit code sees a start of the program text at 1 while the process lives, and some
    # sandboxes have neither: so nobody's failure is told as a good end.
    return _Status(fields[0].decode(), int(fields[19]), int(fields[49]), shows_code=int(fields[23]) > 1)


def _status_by_ps(pid: int) -> _Status | None:
    state, _, started = _output("ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)).strip().partition(" ")
    return _Status(state[0], started.strip()) if state else None


def _boot(root: str | Path) -> str:
    with contextlib.suppress(OSError):
        return Path(root, "proc/sys/kernel/random/boot_id").read_text().strip()
    # macOS moves its boot time whenever the clock is set; the session id, where there is one, stays.
    return next(iter(_output("sysctl", "-n", "kern.bootsessionuuid", "kern.boottime").splitlines()), "")


def _output(*command: str) -> str:
    # One time zone and language: a start time is compared as text.
    env = {"PATH": f"{os.environ.get('PATH', '')}:{SBIN}", "LC_ALL": "C", "TZ": "UTC"}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False).stdout

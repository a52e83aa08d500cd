"""Whether a recorded process is still alive, and why a watched process has ended.

Used by the sender, which is not the kernel's parent and so cannot wait for it. Standard library only.
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

READING = 0.2  # seconds to wait for the end of a process
GONE = "ZXx"  # states of an ended process that its parent has not waited for
STOPPED = "Tt"  # in these states, the exit code contains the signal that stopped the process
# PIDFD_GET_INFO of linux/pidfd.h: mask and cgroup id, eleven ids, exit code; 64 bytes in its first version.
PIDFD_INFO = struct.Struct("=QQ11Ii")
PIDFD_GET_INFO = 3 << 30 | PIDFD_INFO.size << 16 | 0xFF << 8 | 11
PIDFD_INFO_EXIT = 1 << 3
PIDFD_OPEN = 434  # the system call's number on every architecture that Python is built for
SBIN = "/usr/sbin:/sbin:/usr/bin:/bin"


def identity(pid: int, root: str | Path = "/") -> dict[str, Any]:
    """Return what distinguishes a process from every other one: ``host``, ``boot``, ``pid`` and ``started``.

    Parameters
    ----------
    pid : int
    root : str or Path
        Folder above ``proc`` and ``sys``.

    Returns
    -------
    dict

    Raises
    ------
    ProcessLookupError
        If there is no such process. A process that has ended but that its parent has not waited for still exists.
    """
    status = _status(pid, root)
    if status is None:
        raise ProcessLookupError(f"no process {pid}")
    return {"host": socket.gethostname(), "boot": _boot(root), "pid": pid, "started": status.started}


def state_of(identity: Mapping[str, Any], root: str | Path = "/") -> str:
    """Return the state of a recorded process.

    Parameters
    ----------
    identity : mapping
        From `identity`.
    root : str or Path
        Folder above ``proc``.

    Returns
    -------
    {"alive", "ended", "elsewhere"}
        ``elsewhere`` if it runs on another host, so that its state is unknown.
    """
    if identity["host"] != socket.gethostname():
        return "elsewhere"
    if identity["boot"] != _boot(root):
        return "ended"
    # Containers of one machine share the boot id and may share the host name, but have their own pids. Only the start
    # time reveals that a record is another container's; it then counts as ended although it may be alive there.
    status = _status(identity["pid"], root)
    alive = status is not None and status.started == identity["started"] and status.state not in GONE
    return "alive" if alive else "ended"


def rebooted(identity: Mapping[str, Any], root: str | Path = "/") -> bool:
    """Return whether this host has been rebooted since the process was recorded.

    Parameters
    ----------
    identity : mapping
        From `identity`.
    root : str or Path
        Folder above ``proc``.
    """
    return identity["host"] == socket.gethostname() and identity["boot"] != _boot(root)


def record(pid: int, root: str | Path = "/") -> dict[str, Any]:
    """Return the `identity` of a process, and what a `Watch` needs if it begins only after the process has ended.

    Parameters
    ----------
    pid : int
    root : str or Path
        Folder above ``proc`` and ``sys``.

    Returns
    -------
    dict
        `identity`, and ``oom``: the file in which the process's memory cgroup counts out-of-memory kills with its
        current count, or None.

    Raises
    ------
    ProcessLookupError
        If there is no such process.
    """
    counter = oom_counter(pid, root)  # its path is recorded, as /proc/PID/cgroup vanishes with the process
    return identity(pid, root) | {"oom": counter and [str(counter), oom_kills(counter)]}


class Watch:
    """Watches a process so that the cause of its end can be found out.

    Parameters
    ----------
    recorded : dict
        From `record`, of a process on this host. If it has already ended, the signal that ended it is only known until
        its parent waits for it.
    root : str or Path
        Folder above ``proc``.

    Attributes
    ----------
    identity : dict
        The process's `identity`.
    pidfd : int or None
        Linux's handle for the process: readable once it has ended, even if a child still has its pipes open.
    """

    def __init__(self, recorded: Mapping[str, Any], root: str | Path = "/") -> None:
        self.root = root
        self.identity = dict(recorded)
        self._oom: tuple[str | None, int | None] = tuple(self.identity.pop("oom", None) or (None, None))
        status = self._status()
        self._shows_code = status is not None and status.shows_code
        self.pidfd = _open_pidfd(recorded["pid"]) if status else None
        if self.pidfd is not None:
            weakref.finalize(self, os.close, self.pidfd)

    def cause(self) -> tuple[str, int | None]:
        """Return why the process has ended, in words, and the signal that ended it, if known.

        Call it once the end has been noticed: for a process that is still alive it returns "cause unknown".

        Returns
        -------
        cause : str
        signal : int or None
        """
        code = self._exit_code()
        # The counter is the whole cgroup's: if another process in it was killed out of memory, a later SIGKILL for
        # another reason is reported wrongly. The count is current: it rises before the signal is sent.
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
        """Return the process's status as ``wait`` would, or None when it is no longer available.

        It is in /proc from the first moments of the end until the parent has waited; from then on it is in the pidfd,
        since Linux 6.15. /proc is polled without a pause until `state_of`, too, would return "ended".
        """
        deadline = time.monotonic() + READING
        code = None
        while True:
            status = self._status()
            gone = status is None or status.state in GONE
            if status and status.state not in STOPPED and (status.exit_code or (gone and self._shows_code)):
                code = status.exit_code
            if gone or time.monotonic() > deadline:
                return code if code is not None else self._reaped_code()

    def _status(self) -> "_Status | None":
        status = _status(self.identity["pid"], self.root)
        return None if status and status.started != self.identity["started"] else status  # the pid was reused

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
    except AttributeError:  # Python from conda and uv is built for a C library without this function
        import ctypes

        pidfd: int = ctypes.CDLL(None).syscall(PIDFD_OPEN, pid, 0)
        return pidfd if pidfd >= 0 else None


def oom_counter(pid: int, root: str | Path = "/") -> Path | None:
    """Return the file in which the memory cgroup of a process counts out-of-memory kills; None if it cannot be read.

    Parameters
    ----------
    pid : int
    root : str or Path
        Folder above ``proc`` and ``sys``.
    """
    return next((file for file in _counter_files(pid, Path(root)) if oom_kills(file) is not None), None)


def oom_kills(counter: str | Path | None) -> int | None:
    """Return the number of out-of-memory kills in a cgroup's file, or None if it cannot be read.

    Parameters
    ----------
    counter : str, Path or None
        From `oom_counter`.
    """
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
        # In a container the path can be the host's while the mount is the container's own cgroup: use its root then.
        relative = Path(path.lstrip("/"))
        if not controllers:  # v2; without a memory controller, the nearest cgroup above that has one counts
            folders = [place / part for place in (mount, mount / "unified") for part in (relative, *relative.parents)]
            yield from (folder / "memory.events" for folder in folders)
        elif "memory" in controllers.split(","):
            yield from (mount / "memory" / part / "memory.oom_control" for part in (relative, Path()))


class _Status(NamedTuple):
    state: str
    started: int | str
    exit_code: int = 0  # 0 until it ends
    shows_code: bool = False  # if false, 0 means nothing


def _status(pid: int, root: str | Path) -> _Status | None:
    try:
        stat = Path(root, "proc", str(pid), "stat").read_bytes()
    except OSError:
        return None if Path(root, "proc").exists() else _status_by_ps(pid)
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name before it may contain anything; field 3 follows
    # Without permission to see the exit code, the start of the program text reads 1 while the process lives, and some
    # sandboxes show neither. shows_code is then false, so that no failure is reported as a success.
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
    # A fixed time zone and language, as start times are compared as text.
    env = {"PATH": f"{os.environ.get('PATH', '')}:{SBIN}", "LC_ALL": "C", "TZ": "UTC"}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False).stdout

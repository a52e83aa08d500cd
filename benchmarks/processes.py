"""Finds the processes of an execution and measures their memory."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

KERNEL = "ipykernel_launcher"
LOOK = 0.2  # seconds between two searches for new processes
MB = 1e6


def naming(folder: Path) -> list[psutil.Process]:
    """Return the processes whose command line or environment contains the path ``folder``."""
    return [process for process in psutil.process_iter() if _names(process, str(folder))]


def _names(process: psutil.Process, text: str) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        if any(text in word for word in process.cmdline()):
            return True
        return any(text in value for value in process.environ().values())
    return False


def is_kernel(process: psutil.Process) -> bool:
    """Return whether a process is an IPython kernel."""
    with contextlib.suppress(psutil.Error, OSError):
        return KERNEL in process.cmdline()
    return False


def kernel_below(parent: int, patience: float = 60.0) -> psutil.Process:
    """Wait until the process ``parent`` has started a kernel and return the kernel.

    Parameters
    ----------
    parent : int
        Process id.
    patience : float
        Seconds to wait.

    Raises
    ------
    RuntimeError
        If no kernel starts in time, or the process ends first.
    """
    deadline = time.monotonic() + patience
    with contextlib.suppress(psutil.NoSuchProcess):
        while time.monotonic() < deadline:
            if process := next(filter(is_kernel, psutil.Process(parent).children(recursive=True)), None):
                return process
            time.sleep(0.05)
    raise RuntimeError(f"process {parent} started no kernel")


def resident(process: psutil.Process) -> float:
    """Return the memory of a process in MB: PSS (shared pages counted in proportion) if available, else RSS."""
    try:
        return _proc_value(process.pid, "smaps_rollup", "Pss:") / MB
    except OSError:
        return process.memory_info().rss / MB


def peak(process: psutil.Process) -> float:
    """Return the peak resident memory of a process in MB; if the system does not record it, the present value."""
    try:
        return _proc_value(process.pid, "status", "VmHWM:") / MB
    except OSError:
        return process.memory_info().rss / MB


def _proc_value(pid: int, file: str, name: str) -> int:
    """Return a value of ``/proc/<pid>/<file>`` in bytes.

    Raises
    ------
    OSError
        If there is no such value: another system, or the process has ended.
    """
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {name} of process {pid}")


class Peaks:
    """Polls the peak memory of an execution's kernel and of the largest process beside it."""

    def __init__(self, state: Path, besides: int) -> None:
        self.state, self.besides = str(state), besides  # the client is not part of the cost
        self.kernel = self.helper = 0.0
        self._watched: dict[int, tuple[psutil.Process, bool]] = {}
        self._seen: set[int] = set()
        self._next = 0.0

    def look(self) -> None:
        """Update the peaks once."""
        if time.monotonic() >= self._next:
            self._find()
            self._next = time.monotonic() + LOOK
        for pid, (process, kernel) in list(self._watched.items()):
            try:
                now = peak(process)
            except (psutil.Error, OSError):
                del self._watched[pid]
                continue
            if kernel:
                self.kernel = max(self.kernel, now)
            else:
                self.helper = max(self.helper, now)

    def _find(self) -> None:
        for pid in set(psutil.pids()) - self._seen - {self.besides}:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                self._seen.add(pid)
                if _names(process, self.state):
                    self._watched[pid] = process, is_kernel(process)

    def until(self, done: Callable[[], bool]) -> None:
        """Update the peaks until ``done()`` is true."""
        while not done():
            self.look()
            time.sleep(0.02)


@contextlib.contextmanager
def swept(folder: Path) -> Iterator[None]:
    """At the end, terminate all processes whose command line or environment contains the temporary ``folder``."""
    try:
        yield
    finally:
        left = naming(folder)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        for process in psutil.wait_procs(left, timeout=10)[1]:
            with contextlib.suppress(psutil.Error):
                process.kill()

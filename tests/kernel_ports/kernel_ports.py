"""Kernels that never choose the ports of another one, however many tests start kernels at the same time.

Jupyter chooses five free ports a second before the kernel binds them, and knows of one process's kernels only. Among
hundreds of kernels that tests start side by side a few lose a port by that and die at birth. Here a chosen port is
locked until its kernel is gone, and is none that the system hands to servers and connections. Jupyter finds the class
like any other: by an entry point of an installed package. The folder beside this module is such a package for
programs that have it on their path.
"""

import fcntl
import os
import random
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, TextIO

from jupyter_client.provisioning import LocalProvisioner

LOCKS = Path(tempfile.gettempdir()) / f"kernel-ports-{os.getuid()}"
PORTS = range(10_000, 20_000)  # Linux hands out those from 32768; tests choose those of fixed servers between
SOCKETS = ("shell_port", "iopub_port", "stdin_port", "hb_port", "control_port")


def reserve_ports() -> None:
    """Let this process and its children start kernels so."""
    folder = str(Path(__file__).parent)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join([*filter(None, paths), folder])
    os.environ["JUPYTER_DEFAULT_PROVISIONER_NAME"] = "reserved-ports"
    if folder not in sys.path:
        sys.path.append(folder)


class ReservedPorts(LocalProvisioner):
    """Jupyter's local kernels on ports that no other process of this class has chosen."""

    _locks: tuple[TextIO, ...] = ()

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Choose the ports and lock them, once in a kernel's life: a restarted one keeps them."""
        manager = self.parent
        if manager is not None and manager.cache_ports and not self.ports_cached:
            for name in SOCKETS:
                setattr(manager, name, self._reserve(manager.ip))
            self.ports_cached = True
        return await super().pre_launch(**kwargs)

    async def cleanup(self, restart: bool = False) -> None:
        """Give the ports back when the kernel is gone for good."""
        await super().cleanup(restart)
        if not restart:
            for lock in self._locks:
                lock.close()
            self._locks = ()

    def _reserve(self, ip: str) -> int:
        LOCKS.mkdir(exist_ok=True)
        while True:
            port = random.SystemRandom().choice(PORTS)
            lock = (LOCKS / str(port)).open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with socket.socket() as trial:
                    trial.bind((ip, port))
            except OSError:  # a kernel's, or a server's that was given this port
                lock.close()
                continue
            self._locks = (*self._locks, lock)
            return port

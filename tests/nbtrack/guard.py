"""Servers of the tests end with the process that started them, also when pytest kills its worker."""

import contextlib
import subprocess
from collections.abc import Iterator


@contextlib.contextmanager
def guarded(group: int) -> Iterator[None]:
    """Kill what is left of a process group when the block or this process ends, whatever ends it."""
    command = ["sh", "-c", f"read -r _; kill -KILL -{group} 2>/dev/null"]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        guard.communicate()

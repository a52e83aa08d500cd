"""One line to the user that is no cell output."""

import os
import sys


def log_fd() -> int:
    """Return the process's own stderr.

    ipykernel turns file descriptor 2 into cell output and keeps a copy of the real one.
    """
    return getattr(sys.stderr, "_original_stdstream_copy", None) or 2


def say(line: str) -> None:
    """Write ``line`` to the process's own stderr: the terminal of papermill, the log of JupyterLab."""
    os.write(log_fd(), f"pokebattle: {line}\n".encode())

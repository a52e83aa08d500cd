"""One line to the user that is no cell output."""

import functools
import os
import sys


def log_fd() -> int:
    """Return the process's own stderr.

    ipykernel turns file descriptor 2 into cell output and keeps a copy of the real one.
    """
    return getattr(sys.stderr, "_original_stdstream_copy", None) or 2


@functools.cache
def say_once(line: str) -> None:
    """Write ``line`` the first time that there is reason to."""
    say(line)


def say(line: str) -> None:
    """Write ``line`` to the process's own stderr: the terminal of papermill, the log of JupyterLab.

    A progress bar may have left the cursor in the middle of a line.
    """
    os.write(log_fd(), f"\npokebattle: {line}\n".encode())

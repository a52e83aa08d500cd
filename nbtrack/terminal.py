"""Print one line for the user that does not become cell output."""

import functools
import os
import sys


def log_fd() -> int:
    """Return the file descriptor of the process's own stderr.

    ipykernel redirects file descriptor 2 to cell output and keeps a copy of the original one.
    """
    return getattr(sys.stderr, "_original_stdstream_copy", None) or 2


@functools.cache
def say_once(line: str) -> None:
    """Write ``line`` to the process's own stderr, at most once per process.

    Parameters
    ----------
    line : str
    """
    say(line)


def say(line: str) -> None:
    """Write ``line`` to the process's own stderr: papermill's terminal, JupyterLab's log.

    It starts on a new line, as a progress bar may have left the cursor in the middle of one.

    Parameters
    ----------
    line : str
    """
    os.write(log_fd(), f"\npokebattle: {line}\n".encode())

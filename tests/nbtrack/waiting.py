"""Tests wait for events, not for seconds."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
PAUSE = 0.05  # seconds between two looks


def wait_for(condition: Callable[[], T], what: str, seconds: float = 60.0, until: Callable[[T], Any] = bool) -> T:
    """Return the first value of ``condition`` that is true, or that ``until`` finds so.

    Parameters
    ----------
    condition : callable
    what : str
        What is awaited, for the message.
    seconds : float
    until : callable, optional
        Judges the value, where a value that is true is not enough.

    Raises
    ------
    AssertionError
        If it does not come to that in time; it has the last value.
    """
    deadline = time.monotonic() + seconds
    while not until(value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s for {what}, the last value was {value!r}")
        time.sleep(PAUSE)
    return value

"""Keep tracking's own frames out of the tracebacks that a notebook shows."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TRACKING = str(Path(__file__).parents[1])


def install(shell: Any) -> None:
    """Remove tracking's frames from each exception before ``shell`` shows it.

    Parameters
    ----------
    shell : InteractiveShell
    """
    plain = shell._get_exc_info

    @functools.wraps(plain)
    def get_exc_info(*args: Any, **kwargs: Any) -> Any:
        exc_info = plain(*args, **kwargs)
        for error in _chain(exc_info[1]):
            without_tracking(error.__traceback__)
        return exc_info

    shell._get_exc_info = get_exc_info


def without_tracking(traceback: Any) -> None:
    """Remove tracking's frames, except the first, from a traceback, in place.

    Parameters
    ----------
    traceback : traceback or None
    """
    while traceback is not None:
        following = traceback.tb_next
        while following is not None and following.tb_frame.f_code.co_filename.startswith(TRACKING):
            following = following.tb_next
        traceback.tb_next, traceback = following, following


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception, its causes and contexts, and the members of exception groups, each once."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        error = waiting.pop()
        if error is not None and id(error) not in seen:
            seen.add(id(error))
            yield error
            waiting += [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]

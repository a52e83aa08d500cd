"""Tracebacks that a notebook shows are those of its own code: frames of tracking in between are taken out."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TRACKING = str(Path(__file__).parents[1])


def install(shell: Any) -> None:
    """Take tracking's frames out of each exception before ``shell`` shows it."""
    plain = shell._get_exc_info

    @functools.wraps(plain)
    def get_exc_info(*args: Any, **kwargs: Any) -> Any:
        found = plain(*args, **kwargs)
        for error in _chain(found[1]):
            without_tracking(error.__traceback__)
        return found

    shell._get_exc_info = get_exc_info


def without_tracking(traceback: Any) -> None:
    """Unlink tracking's frames from a traceback that begins elsewhere."""
    while traceback is not None:
        following = traceback.tb_next
        while following is not None and following.tb_frame.f_code.co_filename.startswith(TRACKING):
            following = following.tb_next
        traceback.tb_next, traceback = following, following


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception, and those that it came from or holds, each once."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        error = waiting.pop()
        if error is not None and id(error) not in seen:
            seen.add(id(error))
            yield error
            waiting += [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]

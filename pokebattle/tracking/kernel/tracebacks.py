"""Takes this package's own frames out of the tracebacks that cells show: they are as without tracking."""

import functools
from pathlib import Path
from types import TracebackType
from typing import Any

PACKAGE = str(Path(__file__).parents[1])


def install(shell: Any) -> None:
    """Let the shell show errors without the frames of what stands between a cell and mlflow."""
    plain = shell._get_exc_info

    @functools.wraps(plain)
    def exc_info(*args: Any, **kwargs: Any) -> Any:
        kind, error, traceback = plain(*args, **kwargs)
        for linked in _chain(error):
            linked.__traceback__ = without_own_frames(linked.__traceback__)
        return kind, error, without_own_frames(traceback)

    shell._get_exc_info = exc_info


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in found:
            found.append(one)
            waiting += [one.__cause__, one.__context__]
    return found


def without_own_frames(traceback: TracebackType | None) -> TracebackType | None:
    """Return a traceback without frames of this package; one that has no others stays as it is."""
    frames = []
    while traceback is not None:
        frames.append(traceback)
        traceback = traceback.tb_next
    kept = [frame for frame in frames if not frame.tb_frame.f_code.co_filename.startswith(PACKAGE)] or frames
    for frame, following in zip(kept, [*kept[1:], None], strict=True):
        frame.tb_next = following
    return kept[0] if kept else None

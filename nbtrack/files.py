"""Files that are replaced as a whole, and JSON that every program can read. Standard library only."""

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

# The names of numbers that JSON does not allow, in MLflow and elsewhere, by Python's text
NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


@contextlib.contextmanager
def replacing(file: Path, mode: int = 0o666, sync: bool = False) -> Iterator[BinaryIO]:
    """Yield a stream whose content replaces ``file`` when the ``with`` block ends; if it fails, ``file`` is unchanged.

    Parameters
    ----------
    file : Path
    mode : int
        The file's permissions, from which the umask is subtracted.
    sync : bool
        Wait until the content is on the disk before the file is replaced.

    Yields
    ------
    binary stream

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        draft.replace(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write_atomically(file: Path, text: str) -> None:
    """Replace the content of ``file`` so that a reader sees the old or the new content, never a part.

    Parameters
    ----------
    file : Path
    text : str

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    with replacing(file) as stream:
        stream.write(text.encode("utf-8"))


def read_json(file: Path) -> dict[str, Any]:
    """Return the JSON object in ``file``; an empty dict if there is none.

    Parameters
    ----------
    file : Path
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def to_json(value: Any, **options: Any) -> str:
    """Return a value as JSON that every program can read: NaN and infinities become strings.

    Parameters
    ----------
    value : object
    **options
        Passed to ``json.dumps``.
    """
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        return json.dumps(in_words(value), **options)


def in_words(value: Any) -> Any:
    """Return a value in which NaN and infinities, which JSON does not allow, are strings.

    Parameters
    ----------
    value : object
        JSON value.
    """
    if isinstance(value, dict):
        return {key: in_words(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [in_words(one) for one in value]
    is_finite = not isinstance(value, float) or math.isfinite(value)
    return value if is_finite else NOT_FINITE[str(float(value))]

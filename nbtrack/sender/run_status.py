"""How an execution ended: the run's final status, its cause, and whether the notebook ran from top to bottom."""

import itertools
from dataclasses import dataclass, field
from typing import Any

from nbtrack.cells import Places, cell_source
from nbtrack.notebook_context import INTERACTIVE
from nbtrack.sender.executed_notebook import ExecutedCell
from nbtrack.sender.journal_reader import JournalReader
from nbtrack.sender_start import NEVER_RAN
from nbtrack.tags import ERROR

AT_ONCE = 2000  # ms between interrupt and shutdown: clients interrupt a kernel before they restart it
UNKNOWN = "the kernel ended in the middle of a cell, cause unknown"


@dataclass
class Verdict:
    """A run's final status (``FINISHED``, ``FAILED``, ``KILLED``), its cause, and the failed cell, if any.

    In interactive executors, a run may be FINISHED although a cell has failed, if later cells succeeded.
    """

    status: str
    cause: str = ""
    failed: ExecutedCell | None = None
    tags: dict[str, str] = field(default_factory=dict)


def verdict(reader: JournalReader) -> Verdict:
    """Return how the execution ended.

    Parameters
    ----------
    reader : JournalReader
        Must have read the whole journal.
    """
    ending = _verdict(reader)
    if ending.failed is None:
        last = _last(reader)
        left = [cell for cell in reader.failures() if cell is not last or ending.status == "FINISHED"]
        ending.failed = left[-1] if left else None
    return ending


def _verdict(reader: JournalReader) -> Verdict:
    driver = reader.driver_end
    error = str((driver or {}).get("error") or "")
    if error == "KeyboardInterrupt":
        return Verdict("KILLED", "Ctrl-C")
    last = _last(reader)
    if last and last.ended is None:
        return _killed(reader, error, last)
    if last and last.error and last.error["ename"] == "KeyboardInterrupt":
        by_hand = not reader.start.get("driver")  # clients may interrupt a kernel before they end it
        at_once = by_hand and bool(reader.shutdown) and reader.shutdown["time"] - (last.ended or 0) < AT_ONCE
        return Verdict("KILLED", _shutdown_cause(reader) if at_once else "interrupted")
    if failed := _failed_cell(reader, last):
        return Verdict("FAILED", failed=failed)
    if reader.mismatches:
        return _mismatched(reader)
    if last and error == "DeadKernelError":  # between two cells
        return _killed(reader, error, last)
    if last is None and (reader.kernel_end or {}).get("cause") == NEVER_RAN:
        return Verdict("KILLED", NEVER_RAN)
    if error:
        return Verdict("FAILED", tags={ERROR: f"{error}: {(driver or {}).get('message', '')}"})
    if driver is None and reader.start.get("driver") and not _all_ran(reader):
        return Verdict("KILLED", f"{_driver_cause(reader)} before the last cell")
    return Verdict("FINISHED")


def _last(reader: JournalReader) -> ExecutedCell | None:
    """Return the notebook's last executed cell."""
    return next((cell for cell in reversed(reader.cells) if not cell.beside), None)


def _killed(reader: JournalReader, error: str, last: ExecutedCell) -> Verdict:
    """Return the verdict on a kernel that ended in the middle of a cell."""
    if error and error != "DeadKernelError":
        return Verdict("FAILED", failed=last, tags={ERROR: f"{error}: {(reader.driver_end or {}).get('message', '')}"})
    end = reader.kernel_end or {}
    cause = str(end.get("cause") or UNKNOWN)
    if reader.shutdown:
        cause = _shutdown_cause(reader)
    elif end.get("parent_ended") and end.get("signal") is None and not error:  # else it outlived the kernel
        cause = _driver_cause(reader)
    return Verdict("KILLED", cause)


def _shutdown_cause(reader: JournalReader) -> str:
    what = "restarted" if reader.shutdown.get("restart") else "shut down"
    return f"the kernel was {what} in the middle of a cell"


def _driver_cause(reader: JournalReader) -> str:
    executor, why = reader.start["executor"], (reader.kernel_end or {}).get("parent_cause", "")
    program = "the program that started the kernel" if executor == "kernel" else executor
    return f"{program} ended ({why.removeprefix('the process ended, ') or 'cause unknown'})"


def _failed_cell(reader: JournalReader, last: ExecutedCell | None) -> ExecutedCell | None:
    """Return the first cell whose last execution failed; in interactive executors, only the last cell counts."""
    latest = {cell.key: cell for cell in reader.cells if not cell.beside}
    judged = [last] if last and reader.start["executor"] in INTERACTIVE else list(latest.values())
    ended = [cell for cell in judged if cell.ended is not None]
    if reader.start["executor"] == "papermill":
        return next(filter(_fails_papermill, ended), None)
    return next((cell for cell in ended if not cell.ok and not cell.may_fail), None)


def _fails_papermill(cell: ExecutedCell) -> bool:
    """Return whether papermill counts a cell as failed: it only looks at the error output, not at tags."""
    error = cell.error
    return error is not None and (error["ename"] != "SystemExit" or error["evalue"] not in {"", "0"})


def _mismatched(reader: JournalReader) -> Verdict:
    first = reader.mismatches[0]
    failed = next((cell for cell in reader.cells if cell.count == first["cell"]), None)
    return Verdict("FAILED", failed=failed, tags={ERROR: str(first["message"])})


def _all_ran(reader: JournalReader) -> bool:
    code = [cell for cell in reader.document.get("cells", []) if cell.get("cell_type") == "code"]
    return len(reader.cells) >= sum(bool(cell_source(cell).strip()) for cell in code)


def order(executed: list[ExecutedCell], saved: list[dict[str, Any]]) -> str:
    """Return how the executed cells compare with the saved notebook's.

    Parameters
    ----------
    executed : list of ExecutedCell
        In the order in which they ran.
    saved : list of dict
        All cells of the saved notebook.

    Returns
    -------
    str
        ``top to bottom``: every code cell ran once, in its order; ``in order, not to the end``; ``out of order``: a
        cell ran again or before a cell above it. ``, edited`` is appended if the text that ran last is not the saved
        text.
    """
    places, code = Places({"cells": saved}), [index for index, cell in enumerate(saved) if _is_code(cell)]
    ran: list[int | str | None] = []  # positions; for a cell that is not saved, the client's id
    texts: dict[int, bool] = {}  # position -> whether the text that ran there last is the saved one
    for run in executed:
        if run.beside or not run.source.strip():
            continue
        place = places.find(run.id, run.source)
        if place is None and run.untracked and not run.id:  # its text is unknown
            last = next((one for one in reversed(ran) if isinstance(one, int)), -1)
            place = next((index for index in code if index > last), None)
        ran.append(run.id if place is None else place)
        if place is not None:
            texts[place] = run.untracked or cell_source(saved[place]).strip() == run.source.strip()
    known = [place for place in ran if isinstance(place, int)]
    edited = ", edited" if len(known) < len(ran) or not all(texts.values()) else ""
    named = [place for place in ran if place is not None]
    again = len(set(named)) < len(named)
    if again or any(later <= earlier for earlier, later in itertools.pairwise(known)):
        return f"out of order{edited}"
    return f"{'top to bottom' if known == code else 'in order, not to the end'}{edited}"


def _is_code(cell: dict[str, Any]) -> bool:
    return cell.get("cell_type") == "code" and bool(cell_source(cell).strip())

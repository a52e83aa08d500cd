"""How an execution ended: the run's final status, why, and whether the notebook ran from top to bottom."""

import itertools
from dataclasses import dataclass, field
from typing import Any

from pokebattle.tracking.cells import cell_source
from pokebattle.tracking.context import INTERACTIVE
from pokebattle.tracking.opening import NEVER_RAN
from pokebattle.tracking.shipping.executed import ExecutedCell
from pokebattle.tracking.shipping.story import Story

AT_ONCE = 2000  # ms: a client that restarts a kernel interrupts it first
UNKNOWN = "the kernel ended in the middle of a cell, cause unknown"


@dataclass
class Verdict:
    """A run's final status (``FINISHED``, ``FAILED``, ``KILLED``), its cause, and the cell that failed, if one did."""

    status: str
    cause: str = ""
    failed: ExecutedCell | None = None
    tags: dict[str, str] = field(default_factory=dict)


def verdict(story: Story) -> Verdict:
    """Return how the execution ended; the story is that of all of the journal."""
    driver = story.driver_end
    error = str((driver or {}).get("error") or "")
    if error == "KeyboardInterrupt":
        return Verdict("KILLED", "Ctrl-C")
    last = next((cell for cell in reversed(story.cells) if not cell.beside), None)
    if last and last.ended is None:
        return _killed(story, error, last)
    if last and last.error and last.error["ename"] == "KeyboardInterrupt":
        by_hand = not story.start.get("driver")  # who ends the kernel may have interrupted it for that
        at_once = by_hand and bool(story.shutdown) and story.shutdown["time"] - (last.ended or 0) < AT_ONCE
        return Verdict("KILLED", _shutdown_cause(story) if at_once else "interrupted")
    if failed := _failed_cell(story, last):
        return Verdict("FAILED", failed=failed)
    if story.mismatches:
        return _mismatched(story)
    if last and error == "DeadKernelError":  # between two cells
        return _killed(story, error, last)
    if last is None and (story.kernel_end or {}).get("cause") == NEVER_RAN:
        return Verdict("KILLED", NEVER_RAN)
    if error:
        return Verdict("FAILED", tags={"pokebattle.error": f"{error}: {(driver or {}).get('message', '')}"})
    if driver is None and story.start.get("driver") and not _all_ran(story):
        return Verdict("KILLED", f"{_driver_cause(story)} before the last cell")
    return Verdict("FINISHED")


def _killed(story: Story, error: str, last: ExecutedCell) -> Verdict:
    """The kernel ended in the middle of a cell."""
    if error and error != "DeadKernelError":
        return Verdict("FAILED", failed=last, tags={"pokebattle.error": f"{error}: "
                                                    f"{(story.driver_end or {}).get('message', '')}"})  # fmt: skip
    end = story.kernel_end or {}
    cause = str(end.get("cause") or UNKNOWN)
    if story.shutdown:
        cause = _shutdown_cause(story)
    elif end.get("parent_ended") and end.get("signal") is None and not error:  # else it saw the kernel's end
        cause = _driver_cause(story)
    return Verdict("KILLED", cause)


def _shutdown_cause(story: Story) -> str:
    what = "restarted" if story.shutdown.get("restart") else "shut down"
    return f"the kernel was {what} in the middle of a cell"


def _driver_cause(story: Story) -> str:
    executor, why = story.start["executor"], (story.kernel_end or {}).get("parent_cause", "")
    who = "the program that started the kernel" if executor == "kernel" else executor
    return f"{who} ended ({why.removeprefix('the process ended, ') or 'cause unknown'})"


def _failed_cell(story: Story, last: ExecutedCell | None) -> ExecutedCell | None:
    """Return the first cell that failed and was not mended; by hand, only the last one counts."""
    latest = {cell.key or index: cell for index, cell in enumerate(story.cells) if not cell.beside}
    judged = [last] if last and story.start["executor"] in INTERACTIVE else list(latest.values())
    ended = [cell for cell in judged if cell.ended is not None]
    if story.start["executor"] == "papermill":
        return next(filter(_fails_papermill, ended), None)
    return next((cell for cell in ended if not cell.ok and not cell.may_fail), None)


def _fails_papermill(cell: ExecutedCell) -> bool:
    """Tell whether papermill takes a cell for failed: it goes by the errors shown, whatever the cell's tags say."""
    error = cell.error
    return error is not None and (error["ename"] != "SystemExit" or error["evalue"] not in {"", "0"})


def _mismatched(story: Story) -> Verdict:
    first = story.mismatches[0]
    failed = next((cell for cell in story.cells if cell.count == first["cell"]), None)
    return Verdict("FAILED", failed=failed, tags={"pokebattle.error": str(first["message"])})


def _all_ran(story: Story) -> bool:
    code = [cell for cell in story.document.get("cells", []) if cell.get("cell_type") == "code"]
    return len(story.cells) >= sum(bool(cell_source(cell).strip()) for cell in code)


def order(executed: list[ExecutedCell], saved: list[dict[str, Any]]) -> str:
    """Return how the executed cells compare with the saved notebook's.

    ``top to bottom``: every code cell ran once, in its order, with its saved text; ``in order, not to the end``;
    ``out of order``: a cell ran again or before one above it; ``differs from the saved file``: another text ran.
    """
    code = [cell for cell in saved if cell.get("cell_type") == "code" and cell_source(cell).strip()]
    places, after = [], -1
    for run in executed:
        if run.beside or not run.source.strip():
            continue
        same = [i for i, cell in enumerate(code) if run.untracked or cell_source(cell).strip() == run.source.strip()]
        if run.id and any(cell.get("id") == run.id for cell in code):
            same = [i for i in same if code[i].get("id") == run.id]
        if not same:
            return "differs from the saved file"
        after = next((i for i in same if i > after), same[0])
        places.append(after)
    if any(later <= earlier for earlier, later in itertools.pairwise(places)):
        return "out of order"
    return "top to bottom" if places == list(range(len(code))) else "in order, not to the end"

"""How an execution ended, from its journal alone: status, cause, and which cell failed."""

import json
from pathlib import Path
from typing import Any

import pytest

from nbtrack.local_ids import new_local_id
from nbtrack.secrets import Masker
from nbtrack.sender.journal_reader import JournalReader
from nbtrack.sender.run_status import UNKNOWN, Verdict, verdict
from nbtrack.sender.sender import Sender
from nbtrack.sender_start import NEVER_RAN
from nbtrack.tags import ERROR

Events = list[dict[str, Any]]

WITH_DRIVER = {"papermill", "nbval"}  # executors that report how they ended
LATER = 10_000  # ms: long after every event without a time of its own
INTERRUPT, DEAD = "KeyboardInterrupt", "DeadKernelError"
SHUT_DOWN = "the kernel was shut down in the middle of a cell"
RESTARTED = "the kernel was restarted in the middle of a cell"


def begins(turn: int, name: str = "", **marks: Any) -> Events:
    """A cell begins; a name says which of the notebook's cells it is."""
    name = name or f"c{turn}"
    return [{"kind": "cell_start", "cell": turn, "cell_id": name, "source": name, "execution_count": turn + 1, **marks}]


def ends(turn: int, error: str = "", value: str = "") -> Events:
    """A cell ends, with an error that it shows."""
    content = {"ename": error, "evalue": value, "traceback": []}
    shows = {"kind": "output", "cell": turn, "output": "error", "content": content}
    end = {
        "kind": "cell_end",
        "cell": turn,
        "seconds": 0.1,
        "ok": not error,
        "execution_count": turn + 1,
        "error": error or None,
    }
    return [shows, end] if error else [end]


def ran(turn: int, error: str = "", value: str = "", name: str = "", **marks: Any) -> Events:
    return begins(turn, name, **marks) + ends(turn, error, value)


def driver(error: str = "", message: str = "") -> Events:
    return [{"kind": "driver_end", **({"error": error, "message": message} if error else {})}]


def kernel(cause: str, signal: int | None = None, **parent: Any) -> Events:
    return [{"kind": "kernel_end", "cause": cause, "signal": signal, **parent}]


def gone(cause: str) -> dict[str, Any]:
    """The program that executes the notebook has ended."""
    return {"parent_ended": True, "parent_cause": cause}


def shutdown(restart: bool = False, **when: Any) -> Events:
    return [{"kind": "shutdown", "restart": restart, **when}]


def differs(count: int | None) -> Events:
    return [{"kind": "mismatch", "cell": count, "message": "the output differs"}]


def ending(
    folder: Path, executor: str, events: Events, saved: int = 2, dropped: dict[str, Any] | None = None
) -> Verdict:
    """Write a journal, read it and judge it; the notebook has some code cells, a blank one and a text."""
    cells = [{"cell_type": "code", "id": f"c{n}", "source": f"c{n}"} for n in range(saved)]
    cells += [{"cell_type": "code", "id": "blank", "source": "\n"}, {"cell_type": "markdown", "source": "text"}]
    (folder / "notebook.json").write_text(json.dumps({"cells": cells}))
    (folder / "code.json").write_text('{"commit": ""}')  # so that git is not asked
    start = {
        "kind": "start",
        "execution": "one",
        "run": new_local_id(),
        "root": new_local_id(),
        "notebook": "",
        "cwd": "/",
        "executor": executor,
        "driver": {"pid": 1} if executor in WITH_DRIVER else None,
    }
    lines = [json.dumps({"time": number} | event) + "\n" for number, event in enumerate([start, *events])]
    (folder / "journal.jsonl").write_text("".join(lines))
    reader = JournalReader(folder, Sender(folder, "http://127.0.0.1:9"), Masker({}))
    reader.read()
    reader.fill_in(dropped or {})
    return verdict(reader)


def summary(ending_: Verdict) -> tuple[str, str, int | None]:
    """Status, cause, and the failed cell's number."""
    return ending_.status, ending_.cause, ending_.failed.count if ending_.failed else None


BOTH = ran(0) + ran(1)
FINISHED = ("FINISHED", "", None)


@pytest.mark.parametrize("executor", ["papermill", "nbval", "nbconvert", "jupyterlab", "vscode", "kernel", "script"])
def test_cells_that_succeed_finish_the_run(tmp_path: Path, executor: str) -> None:
    events = BOTH + (driver() if executor in WITH_DRIVER else [])
    assert summary(ending(tmp_path, executor, events)) == FINISHED


FAILURES = {
    "papermill": ("papermill", ran(0) + ran(1, "ValueError") + driver(), 2),
    "papermill says so too": ("papermill", ran(0, "ValueError") + driver("PapermillExecutionError", "m"), 1),
    "nbconvert": ("nbconvert", ran(0, "ValueError"), 1),
    "a script": ("script", ran(0, "ValueError"), 1),
    "nbval goes on: the first, by pytest's number": ("nbval", ran(0) + ran(1, "A") + ran(2, "B") + driver(), 1),
    "lab: the last": ("jupyterlab", ran(0) + ran(1, "ValueError"), 2),
    "lab: the last, again": ("jupyterlab", ran(0, name="c0") + ran(1, "ValueError", name="c0"), 2),
    "papermill goes by errors, not by tags": ("papermill", ran(0, "ValueError", may_fail=True) + driver(), 1),
    "exit status": ("papermill", ran(0, "SystemExit", "3") + driver(), 1),
    "exit in a client that stops at it": ("nbconvert", ran(0, "SystemExit", "0"), 1),
    "then the kernel died": ("papermill", ran(0, "ValueError") + driver(DEAD) + kernel("SIGKILL", 9), 1),
    "then papermill was ended": ("papermill", ran(0, "ValueError") + kernel("unknown", **gone("SIGTERM")), 1),
    "and an output differs": ("nbval", ran(0) + ran(1, "A") + differs(0) + driver(), 1),
}


@pytest.mark.parametrize(("executor", "events", "cell"), FAILURES.values(), ids=FAILURES)
def test_a_failed_cell_fails_the_run(tmp_path: Path, executor: str, events: Events, cell: int) -> None:
    assert summary(ending(tmp_path, executor, events)) == ("FAILED", "", cell)


HARMLESS = {
    "a cell that may": ("nbconvert", ran(0, "ValueError", may_fail=True) + ran(1), None),
    "a cell that may, in lab, the last": ("jupyterlab", ran(0) + ran(1, "ValueError", may_fail=True), None),
    "a cell that may, under nbval": ("nbval", ran(0, "ValueError", may_fail=True) + ran(1) + driver(), None),
    "exit": ("papermill", ran(0) + ran(1, "SystemExit", "0") + driver(), None),
    "exit without a status": ("papermill", ran(0) + ran(1, "SystemExit") + driver(), None),
    "lab: others succeeded": ("jupyterlab", ran(0) + ran(1, "ValueError") + ran(2), 2),
    "lab: it succeeded later": ("jupyterlab", ran(0, "ValueError") + ran(1, name="c0"), None),
    "lab: interrupted, and others succeeded": ("jupyterlab", ran(0, INTERRUPT) + ran(1), 1),
    "a console's": ("jupyterlab", ran(0) + ran(1, "ValueError", name="x", beside=True), None),
    "a console's, interrupted": ("jupyterlab", ran(0) + ran(1, INTERRUPT, name="x", beside=True), None),
    "a console's, still running": ("jupyterlab", ran(0) + begins(1, name="x", beside=True), None),
}


@pytest.mark.parametrize(("executor", "events", "named"), HARMLESS.values(), ids=HARMLESS)
def test_an_error_may_leave_the_run_finished(tmp_path: Path, executor: str, events: Events, named: int | None) -> None:
    assert summary(ending(tmp_path, executor, events)) == ("FINISHED", "", named)


INTERRUPTED = {
    "Ctrl-C": ("papermill", begins(0) + driver(INTERRUPT), "Ctrl-C"),
    "Ctrl-C, and the cell knows": ("papermill", ran(0, INTERRUPT) + driver(INTERRUPT), "Ctrl-C"),
    "Ctrl-C between cells": ("papermill", ran(0) + driver(INTERRUPT), "Ctrl-C"),
    "the cell alone": ("papermill", ran(0, INTERRUPT) + driver("PapermillExecutionError"), "interrupted"),
    "papermill shuts down what was interrupted": ("papermill", ran(0, INTERRUPT) + shutdown(), "interrupted"),
    "in lab": ("jupyterlab", ran(0) + ran(1, INTERRUPT), "interrupted"),
    "in lab, shut down": ("jupyterlab", ran(0, INTERRUPT) + shutdown(), SHUT_DOWN),
    "in lab, restarted": ("jupyterlab", ran(0, INTERRUPT) + shutdown(restart=True), RESTARTED),
    "in lab, shut down later": ("jupyterlab", ran(0, INTERRUPT) + shutdown(time=LATER), "interrupted"),
    "in lab, and a console's request after it": (
        "jupyterlab",
        ran(0, INTERRUPT) + ran(1, name="x", beside=True),
        "interrupted",
    ),
}


@pytest.mark.parametrize(("executor", "events", "cause"), INTERRUPTED.values(), ids=INTERRUPTED)
def test_an_interrupted_cell_is_a_killed_run_and_no_failure(
    tmp_path: Path, executor: str, events: Events, cause: str
) -> None:
    assert summary(ending(tmp_path, executor, events)) == ("KILLED", cause, None)


IN_A_CELL = {
    "SIGKILL": ("papermill", driver(DEAD) + kernel("SIGKILL, cause unknown", 9), "SIGKILL, cause unknown"),
    "out of memory": ("papermill", driver(DEAD) + kernel("out of memory", 9), "out of memory"),
    "in lab": ("jupyterlab", kernel("exit status 7"), "exit status 7"),
    "nobody saw it": ("jupyterlab", [], UNKNOWN),
    "the first report counts": ("jupyterlab", kernel("SIGSEGV", 11) + kernel("found later"), "SIGSEGV"),
    "shut down": ("jupyterlab", shutdown() + kernel("exit status 0"), SHUT_DOWN),
    "shut down, long after its start": ("jupyterlab", shutdown(time=LATER), SHUT_DOWN),
    "restarted": ("vscode", shutdown(restart=True) + kernel("SIGKILL", 9), RESTARTED),
    "papermill was ended": ("papermill", kernel("exit status 0", **gone("SIGTERM")), "papermill ended (SIGTERM)"),
    "papermill ended, nobody knows why": (
        "papermill",
        kernel("exit status 0", **gone("the process ended, cause unknown")),
        "papermill ended (cause unknown)",
    ),
    "papermill ended, nobody says why": (
        "papermill",
        kernel("exit status 0", parent_ended=True),
        "papermill ended (cause unknown)",
    ),
    "a program of one's own ended": (
        "kernel",
        kernel("exit status 0", **gone("SIGKILL")),
        "the program that started the kernel ended (SIGKILL)",
    ),
    "papermill ended after the kernel was killed": ("papermill", kernel("SIGKILL", 9, **gone("SIGTERM")), "SIGKILL"),
    "papermill ended after it saw the kernel die": (
        "papermill",
        driver(DEAD) + kernel("exit status 7", **gone("exit status 1")),
        "exit status 7",
    ),
}


@pytest.mark.parametrize(("executor", "events", "cause"), IN_A_CELL.values(), ids=IN_A_CELL)
def test_a_kernel_that_ends_in_a_cell_is_a_killed_run(
    tmp_path: Path, executor: str, events: Events, cause: str
) -> None:
    assert summary(ending(tmp_path, executor, ran(0) + begins(1) + events)) == ("KILLED", cause, None)


BETWEEN = {
    "the kernel died": (ran(0) + driver(DEAD) + kernel("SIGKILL", 9), ("KILLED", "SIGKILL", None)),
    "the kernel died after the last cell": (BOTH + driver(DEAD) + kernel("SIGKILL", 9), ("KILLED", "SIGKILL", None)),
    "papermill was ended": (
        ran(0) + kernel("exit status 0", **gone("SIGTERM")),
        ("KILLED", "papermill ended (SIGTERM) before the last cell", None),
    ),
    "nobody knows what happened": (ran(0), ("KILLED", "papermill ended (cause unknown) before the last cell", None)),
    "papermill was ended after the last cell": (BOTH + kernel("exit status 0", **gone("SIGTERM")), FINISHED),
    "papermill reports no end after the last cell": (BOTH, FINISHED),
    "papermill stops before the last cell": (ran(0) + driver(), FINISHED),
    "the kernel never ran": (kernel(NEVER_RAN) + driver(DEAD), ("KILLED", NEVER_RAN, None)),
    "the kernel never ran and nobody reports": (kernel(NEVER_RAN), ("KILLED", NEVER_RAN, None)),
    "papermill was ended before the first cell": (
        kernel("exit status 0", **gone("SIGKILL")),
        ("KILLED", "papermill ended (SIGKILL) before the last cell", None),
    ),
}


@pytest.mark.parametrize(("events", "expected"), BETWEEN.values(), ids=BETWEEN)
def test_an_end_between_two_cells(tmp_path: Path, events: Events, expected: Any) -> None:
    assert summary(ending(tmp_path, "papermill", events)) == expected


@pytest.mark.parametrize("executor", ["jupyterlab", "vscode", "kernel", "nbconvert"])
@pytest.mark.parametrize("end", [kernel("SIGKILL", 9), shutdown(), kernel("unknown", **gone("SIGTERM")), []])
def test_an_idle_kernel_may_end_in_any_way(tmp_path: Path, executor: str, end: Events) -> None:
    assert summary(ending(tmp_path, executor, ran(0) + end)) == FINISHED


OF_THE_PROGRAM = {
    "before the first cell": (driver("ParameterError", "unknown"), None, "ParameterError: unknown"),
    "between cells": (ran(0) + driver("OSError", "disk full"), None, "OSError: disk full"),
    "in a cell": (begins(0) + driver("CellTimeoutError", "60 s"), 1, "CellTimeoutError: 60 s"),
    "in a cell, and the kernel was killed": (
        ran(0) + begins(1) + driver("CellTimeoutError", "60 s") + kernel("SIGKILL", 9),
        2,
        "CellTimeoutError: 60 s",
    ),
    "without a message": ([{"kind": "driver_end", "error": "OSError"}], None, "OSError: "),
}


@pytest.mark.parametrize(("events", "cell", "error"), OF_THE_PROGRAM.values(), ids=OF_THE_PROGRAM)
def test_an_error_of_the_program_fails_the_run(tmp_path: Path, events: Events, cell: int | None, error: str) -> None:
    ending_ = ending(tmp_path, "papermill", events)
    assert (summary(ending_), ending_.tags) == (("FAILED", "", cell), {ERROR: error})


DIFFER = {
    "one": (BOTH + differs(0) + driver(), 1),
    "the first of two": (BOTH + differs(1) + differs(0) + driver(), 2),
    "of a cell that is not known": (BOTH + differs(7) + driver(), None),
    "in a cell that may fail": (ran(0, "ValueError", may_fail=True) + ran(1) + differs(0) + driver(), 1),
}


@pytest.mark.parametrize(("events", "cell"), DIFFER.values(), ids=DIFFER)
def test_an_output_that_differs_fails_the_run(tmp_path: Path, events: Events, cell: int | None) -> None:
    ending_ = ending(tmp_path, "nbval", events)
    named = None if cell is None else f"c{cell - 1}"
    assert (ending_.status, ending_.failed and ending_.failed.source) == ("FAILED", named)
    assert ending_.tags == {ERROR: "the output differs"}


def last(cell: int, ok: bool | None) -> dict[str, Any]:
    """The count of events for which there was no space."""
    return {"events": 3, "bytes": 300, "last": {"cell": cell, "ok": ok}}


DROPPED = {
    "the end of a cell that succeeded": ("papermill", ran(0) + begins(1) + driver(), last(1, True), FINISHED),
    "the end of a cell that failed": ("papermill", ran(0) + begins(1) + driver(), last(1, False), ("FAILED", "", 2)),
    "the end of a cell that failed, in lab": ("jupyterlab", begins(0), last(0, False), ("FAILED", "", 1)),
    "a whole cell that failed": ("papermill", ran(0) + driver(), last(1, False), ("FAILED", "", None)),
    "all cells": ("papermill", driver(), last(4, True), FINISHED),
    "the start of a cell that did not end": (
        "jupyterlab",
        ran(0) + kernel("SIGKILL", 9),
        last(1, None),
        ("KILLED", "SIGKILL", None),
    ),
    "no cell": ("papermill", BOTH + driver(), {"events": 3, "bytes": 300, "last": None}, FINISHED),
    "nothing": ("jupyterlab", begins(0), {"events": 0, "bytes": 0, "last": {"cell": 0, "ok": True}}, None),
    "the start of a failed cell": ("nbconvert", ran(0) + ends(1, "A"), last(1, False), ("FAILED", "", 2)),
    "the start of a cell that succeeded after a failed one": (
        "nbval",
        ran(0, "A", name="c1") + ends(1) + driver(),
        last(1, True),
        ("FAILED", "", 1),
    ),
    "the starts of two cells, the first failed": (
        "jupyterlab",
        ends(0, "A") + ends(1) + ran(2),
        last(2, True),
        ("FINISHED", "", 1),
    ),
}


@pytest.mark.parametrize(("executor", "events", "dropped", "expected"), DROPPED.values(), ids=DROPPED)
def test_what_had_no_space_is_judged_by_the_count(
    tmp_path: Path, executor: str, events: Events, dropped: dict[str, Any], expected: Any
) -> None:
    assert summary(ending(tmp_path, executor, events, dropped=dropped)) == (expected or ("KILLED", UNKNOWN, None))

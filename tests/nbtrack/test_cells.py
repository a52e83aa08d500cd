"""Which request is which cell, whose output is whose, by which number a cell is named."""

import json
from typing import Any

import nbformat
import pytest

from nbtrack.cells import Places

WAITS = "import pathlib, time\nprint('begun')\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.01)\n"
FIT = "from sklearn.linear_model import LinearRegression\nLinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]);"


def texts(cell: dict[str, Any]) -> str:
    return "".join(output.get("text", "") for output in cell["outputs"])


def test_a_request_of_a_subshell_takes_nothing_from_a_running_cell(
    tracked: Any, make_notebook: Any, lab_kernel: Any
) -> None:
    fails = WAITS + "print('of the cell')\nraise ValueError('lost')"
    kernel = lab_kernel(tracked, tracked.write("beside.ipynb", make_notebook("x = 1", fails)))
    try:
        kernel.run("x = 1", "cell-0")
        subshell = kernel.subshell()
        long = kernel.send(fails, "cell-1")
        kernel.text_until("begun")
        reply = kernel.wait(kernel.send("print('of the console')\n1 / 0", subshell=subshell))
        assert reply["content"]["ename"] == "ZeroDivisionError"
        kernel.run("pathlib.Path('go').touch()", subshell=subshell)
        kernel.wait(long, kernel.send("x", subshell=subshell))
    finally:
        kernel.stop()
    (run,) = tracked.runs("beside")
    assert run.info.status == "FAILED"
    assert run.data.tags["pokebattle.error"] == "ValueError: lost"
    assert run.data.tags["pokebattle.failed_source"] == fails
    assert "raise ValueError" in run.data.tags["pokebattle.traceback"]
    assert run.data.tags["pokebattle.order"] == "top to bottom"
    assert "ZeroDivisionError" not in run.data.tags["mlflow.note.content"]
    cells = tracked.artifact(run, "cells.json")
    assert [cell["ok"] for cell in cells] == [True, False, False, True, True]
    assert [(cell["error"] or {}).get("ename") for cell in cells] == [
        None,
        "ValueError",
        "ZeroDivisionError",
        None,
        None,
    ]
    assert cells[1]["seconds"] > cells[2]["seconds"]
    executed = tracked.artifact(run, "beside.ipynb")["cells"]
    of_cell, of_console = (next(cell for cell in executed if cell["source"] == ran["source"]) for ran in cells[1:3])
    assert (texts(of_cell), texts(of_console)) == ("begun\nof the cell\n", "of the console\n")


def test_the_cells_number_is_the_one_that_lab_shows(tracked: Any, make_notebook: Any, lab_kernel: Any) -> None:
    """Lab shows the number in the reply, which counts what ran beside the cell."""
    kernel = lab_kernel(tracked, tracked.write("counted.ipynb", make_notebook(WAITS, "1 / 0")))
    try:
        subshell = kernel.subshell()
        sent = kernel.send(WAITS, "cell-0")
        kernel.text_until("begun")
        kernel.wait(kernel.send("pathlib.Path('go').touch()", subshell=subshell))
        fails = kernel.send("1 / 0", "cell-1")
        shown = [kernel.wait(request)["content"]["execution_count"] for request in (sent, fails)]
    finally:
        kernel.stop()
    (run,) = tracked.runs("counted")
    assert shown == [2, 3]
    assert [cell["cell"] for cell in tracked.artifact(run, "cells.json") if cell["id"]] == shown
    assert run.data.tags["pokebattle.failed_cell"] == "3"
    executed = tracked.artifact(run, "counted.ipynb")["cells"]
    assert [cell["execution_count"] for cell in executed if cell["id"].startswith("cell-")] == shown


def test_late_text_is_stored_where_the_front_end_puts_it(tracked: Any, make_notebook: Any, lab_kernel: Any) -> None:
    cells = (
        "import asyncio, threading\nlast = threading.Event()\n"
        "async def later():\n"
        "    while not last.is_set():\n        await asyncio.sleep(0.01)\n    print('of the task')\n"
        "def meanwhile():\n    last.wait()\n    print('of the thread')\n"
        "task, thread = asyncio.create_task(later()), threading.Thread(target=meanwhile)",
        "thread.start()",
        "last.set()\nthread.join()\nawait task\nprint('of the last')",
    )
    kernel = lab_kernel(tracked, tracked.write("late_text.ipynb", make_notebook(*cells)))
    try:
        sent = [kernel.send(source, f"cell-{number}") for number, source in enumerate(cells)]
        shown = kernel.text_until("of the task", "of the thread", "of the last")
        kernel.wait(sent[-1])
    finally:
        kernel.stop()
    (run,) = tracked.runs("late_text")
    executed = tracked.artifact(run, "late_text.ipynb")["cells"]
    assert [texts(cell) for cell in executed] == [shown.get(request, "") for request in sent]
    assert texts(executed[0]) == "of the task\n"


def test_hidden_requests_of_a_front_end_are_no_cells(tracked: Any, make_notebook: Any, lab_kernel: Any) -> None:
    kernel = lab_kernel(tracked, tracked.write("hidden.ipynb", make_notebook("x = 1")))
    try:
        kernel.wait(kernel.send("%config InlineBackend", store_history=False))
        kernel.run("x = 1", "cell-0")
        kernel.wait(kernel.send("print(dir())\n1 / 0", store_history=False))
    finally:
        kernel.stop()
    (run,) = tracked.runs("hidden")
    assert (run.info.status, run.data.tags["pokebattle.order"]) == ("FINISHED", "top to bottom")
    assert [cell["source"] for cell in tracked.artifact(run, "cells.json")] == ["x = 1"]


WAYS = {
    "papermill": ["papermill", "{0}", "out.ipynb"],
    "nbconvert": ["jupyter-nbconvert", "--to", "notebook", "--execute", "--output=out.ipynb", "{0}"],
    "nbval": ["pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env", "{0}"],
}


@pytest.mark.parametrize("way", WAYS)
def test_cells_of_equal_text_are_distinguished_without_ids(tracked: Any, make_notebook: Any, way: str) -> None:
    """A second equal cell that fits is no second attempt, and one that fails is not the one whose error is meant."""
    check = "n = globals().get('n', 0) + 1\nprint(n)\nif n != 2:\n    raise LookupError(str(n))"
    document = make_notebook(FIT, FIT, check, check, check, metadata={"pokebattle": {"experiment": f"alike_{way}"}})
    document.cells[2].metadata["tags"] = ["raises-exception"]
    document.nbformat_minor = 4
    for cell in document.cells:
        del cell["id"]
    name = f"alike_{way}"
    tracked.write(f"{name}.ipynb", document)
    done = tracked.execute(*[word.format(f"{name}.ipynb") for word in WAYS[way]])
    assert done.returncode != 0
    runs = tracked.runs("notebook-tests" if way == "nbval" else name)
    (run,) = [run for run in runs if way != "nbval" or run.info.run_name == name]  # and no attempts
    assert run.info.status == "FAILED"
    first = 2 if way == "papermill" else 4  # papermill goes by the errors shown, whatever the tags say
    assert run.data.tags["pokebattle.failed_cell"] == str(first + (way != "nbval"))
    assert run.data.tags["pokebattle.error"] == f"LookupError: {first - 1}"
    executed = tracked.artifact(run, f"{name}.ipynb")
    assert [texts(cell) for cell in executed["cells"]] == ["", "", "1\n", "2\n", "3\n"]
    nbformat.validate(nbformat.from_dict(executed))


def places(document: Any, *ran: tuple[str | None, str]) -> list[int | None]:
    known = Places(document)
    return [known.find(*cell) for cell in ran]


def test_executed_cells_are_found_by_id_by_handle_or_by_text_in_order() -> None:
    cells = [{"cell_type": "code", "source": source} for source in "aba"]
    cells.insert(1, {"cell_type": "markdown", "source": "b"})
    plain = {"cells": cells}
    assert places(plain, (None, "a"), (None, "b"), (None, "a")) == [0, 2, 3]
    assert places(plain, (None, "b"), (None, "a"), (None, "x"), (None, "b")) == [2, 3, None, 2]
    assert places(plain, ("x:1", "a"), ("x:1", "edited"), ("x:2", "a"), ("x:1", "a")) == [0, 0, 3, 0]
    named = json.loads(json.dumps(plain))
    for number, cell in enumerate(named["cells"]):
        cell["id"] = f"id-{number}"
    assert places(named, ("id-3", "a"), ("new", "a"), ("id-0", "edited")) == [3, None, 0]
    assert places(named, ("vscode-notebook-cell:/n.ipynb#W0", "a"), ("vscode-notebook-cell:/n.ipynb#W3", "a")) == [0, 3]
    assert places({}, (None, "a")) == [None]

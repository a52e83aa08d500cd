"""papermill works as without the product, whatever it is given to execute."""

from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from papermill import engines

from nbtrack.executors import papermill as driver

IN_MEMORY = """
import nbformat, papermill
node = nbformat.read("node.ipynb", 4)
papermill.execute_notebook(node, "out.ipynb", {"x": 7}, progress_bar=False)
"""


def test_a_notebook_in_memory_is_one_run(tracked: Any, make_notebook: Any) -> None:
    tracked.write("node.ipynb", make_notebook("print(x * 6)" + "  # long" * 60, parameters="x = 1"))
    done = tracked.execute("python", "-c", IN_MEMORY)
    assert done.returncode == 0, done.stderr
    (run,) = tracked.runs("out")
    assert (run.info.status, run.data.params) == ("FINISHED", {"x": "7"})
    assert run.data.tags["pokebattle.executor"] == "papermill"


@pytest.mark.parametrize("metadata", [True, "yes", ["a"], None])
def test_foreign_metadata_of_our_name_stays_as_it_is(tracked: Any, make_notebook: Any, metadata: Any) -> None:
    path = tracked.write("odd.ipynb", make_notebook("1", metadata={"pokebattle": metadata}))
    done = tracked.papermill(path)
    assert done.returncode == 0, done.stderr
    assert nbformat.read(tracked.folder / "out.ipynb", 4).metadata["pokebattle"] == metadata


def test_a_client_that_replaces_papermills_is_used(monkeypatch: Any, make_notebook: Any, tmp_path: Path) -> None:
    given: dict[str, Any] = {}

    class Client:
        def __init__(self, *_: Any, **options: Any) -> None:
            given.update(options)

        def execute(self, **_: Any) -> None:
            pass

    monkeypatch.setenv("POKEBATTLE_TRACKING", "off")
    monkeypatch.setattr(engines, "PapermillNotebookClient", Client)
    papermill.execute_notebook(make_notebook("1"), None, progress_bar=False, start_timeout=123)
    assert (given["startup_timeout"], given["kernel_name"]) == (123, "python3")


@pytest.mark.parametrize("input_path", [None, "-", {"cells": []}, "s3://bucket/" + "x" * 5000, "nul\0", b"bytes", 3])
def test_what_is_no_file_is_no_notebook_on_disk(make_notebook: Any, input_path: Any) -> None:
    document = make_notebook("1", metadata={"papermill": {}})
    assert driver._context(document, input_path)["notebook"] is None


def test_a_fault_in_tracking_leaves_papermill_alone(capfd: Any) -> None:
    assert driver._context("no notebook", None) is None
    assert "this execution is not tracked (_context: AttributeError" in capfd.readouterr().err

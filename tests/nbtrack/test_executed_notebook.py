"""The executed notebook and its figures, put together from what a journal contains."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from nbtrack.sender.executed_notebook import ExecutedCell, ExecutedNotebook
from nbtrack.sender.run_writer import RunWriter

LOCAL, SERVERS = "10ca1" + 27 * "7", 32 * "a"


def saved(*names: str) -> dict[str, Any]:
    cells = [{"cell_type": "code", "id": name, "source": f"{name} as saved", "metadata": {}} for name in names]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


class Journal:
    """A journal of outputs only, and the cells that have shown them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cells = folder, list[ExecutedCell]()
        (folder / "journal.jsonl").touch()

    def run(self, name: str, source: str, text: str = "", picture: bytes = b"") -> ExecutedCell:
        turn = len(self.cells)
        cell = ExecutedCell({"cell_id": name, "source": source, "time": turn, "execution_count": turn + 1})
        data = {"text/plain": text} | ({"image/png": base64.b64encode(picture).decode()} if picture else {})
        with (self.folder / "journal.jsonl").open("ab") as file:
            event = {"kind": "output", "output": "display_data", "content": {"data": data, "metadata": {}}}
            cell.note_output(file.tell(), event)
            file.write(json.dumps(event).encode() + b"\n")
        cell.end({"time": turn, "seconds": 0.0, "ok": True, "execution_count": turn + 1, "error": None})
        self.cells.append(cell)
        return cell

    def notebook(self, document: dict[str, Any]) -> ExecutedNotebook:
        return ExecutedNotebook(self.folder, document, self.cells, lambda part: part)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """An empty journal."""
    return Journal(tmp_path)


def test_cells_that_were_edited_added_and_run_again_show_their_last_execution_in_their_place(journal: Journal) -> None:
    for name, source in (("a", "a"), ("new", "new 1"), ("b", "b"), ("new", "new 2"), ("a", "a edited")):
        journal.run(name, source, text=f"of {source}")
    notebook = journal.notebook(saved("a", "b", "c"))
    shown = [
        (cell["source"], [output["data"]["text/plain"] for output in cell["outputs"]])
        for cell in notebook.cells_with_outputs()
    ]
    assert shown == [("a edited", ["of a edited"]), ("new 2", ["of new 2"]), ("b", ["of b"]), ("c as saved", [])]
    assert notebook.ran_again


def test_figures_of_cells_that_have_not_run_again_belong_to_the_attempt_in_which_they_ran(journal: Journal) -> None:
    journal.run("a", "plot", picture=b"old a")
    journal.run("b", "plot", picture=b"old b").left_to = 1
    journal.run("a", "plot", picture=b"new a")
    figures = list(journal.notebook(saved("a", "b")).figures())
    assert figures == [("cell_03.png", b"new a", 0), ("cell_02.png", b"old b", 1)]


def test_a_link_that_was_shown_before_the_server_knew_the_run_has_its_ids(journal: Journal) -> None:
    start = {"uri": "http://127.0.0.1:9", "run": LOCAL, "notebook": "n.ipynb"}
    writer = RunWriter(journal.folder, start)
    writer.delivery.progress.note(ids={LOCAL: SERVERS})
    journal.run("a", "print(link)", text=f"http://127.0.0.1:9/#/experiments/1/runs/{LOCAL}")
    text = b"".join(writer._with_ids(journal.notebook(saved("a")))).decode()
    assert f"/runs/{SERVERS}" in text and LOCAL not in text

"""Commit, dirty flag and patch speak of the code that ran, not of the files."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nbtrack.provenance import code_version
from nbtrack.secrets import MASK, Masker
from nbtrack.sender.executed_notebook import ExecutedCell
from nbtrack.sender.run_provenance import NOT_SHOWN, Provenance

SOURCES = {"a": "import module", "b": "fit(depth=6)", "c": "key = 'swordfish'\nuse(key)"}


def code(source: str, name: str, **metadata: Any) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "id": name,
        "source": source,
        "metadata": metadata,
        "outputs": [],
        "execution_count": None,
    }


def save(folder: Path, cells: list[dict[str, Any]]) -> Path:
    file = folder / "n.ipynb"
    file.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return file


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    """A committed notebook, with a module beside it."""
    (tmp_path / "module.py").write_text("x = 1\n")
    text = {"cell_type": "markdown", "id": "t", "source": "Words", "metadata": {}}
    file = save(tmp_path, [text, *(code(source, name) for name, source in SOURCES.items())])
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"]):
        git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org", *command]
        subprocess.run(git, check=True)
    return file


def provenance(notebook: Path) -> Provenance:
    folder = notebook.parent / ".git" / "state"
    folder.mkdir(exist_ok=True)
    start = {"notebook": str(notebook), "cwd": "/", "prefix": None}
    return Provenance(folder, start, Masker({}))


def ran(sources: dict[str, str]) -> list[tuple[dict[str, Any], ExecutedCell | None]]:
    """Return the notebook's cells with what ran of them."""
    cells = [code(SOURCES[name], name) | {"outputs": [{"text": "noise"}]} for name in SOURCES]
    runs = {name: ExecutedCell({"source": source, "cell_id": name, "time": 0}) for name, source in sources.items()}
    return [(cell, runs.get(cell["id"])) for cell in cells]


def test_what_the_commit_contains_is_clean(notebook: Path) -> None:
    assert provenance(notebook).that_ran(ran(SOURCES), 1) == (False, "")


def test_cells_that_did_not_run_differ_from_nothing(notebook: Path) -> None:
    assert provenance(notebook).that_ran(ran({"a": SOURCES["a"]}), 1) == (False, "")


def test_a_cell_that_was_edited_and_not_saved_is_dirty_and_in_the_patch(notebook: Path) -> None:
    notebook_code = provenance(notebook)
    assert notebook_code.at_start["dirty"] is False
    assert not notebook_code.contains("fit(depth=3)") and notebook_code.contains("fit(depth=6)\n")
    dirty, patch = notebook_code.that_ran(ran(SOURCES | {"b": "fit(depth=3)"}), 1)
    assert dirty and "\n-fit(depth=6)\n+fit(depth=3)\n" in patch and "noise" not in patch
    assert patch.startswith("--- a/n.ipynb (code cells)\n+++ b/n.ipynb (code cells)\n")


def test_an_added_cell_is_dirty_and_the_one_that_papermill_injects_is_not(notebook: Path) -> None:
    injected = code("depth = 3", "i", tags=["injected-parameters"])
    cells = ran(SOURCES)
    cells.insert(1, (injected, ExecutedCell({"source": "depth = 3", "cell_id": "i", "time": 0})))
    assert provenance(notebook).that_ran(cells, 1) == (False, "")
    cells.insert(1, (code("", "x"), ExecutedCell({"source": "more()", "cell_id": "x", "time": 0})))
    dirty, patch = provenance(notebook).that_ran(cells, 1)
    assert dirty and "+more()\n" in patch


def test_what_is_saved_and_did_not_run_is_not_reported(notebook: Path) -> None:
    save(notebook.parent, [code(source, name) for name, source in (SOURCES | {"b": "later()"}).items()])
    notebook_code = provenance(notebook)
    assert notebook_code.at_start["dirty"] is True  # the notebook may still run it
    assert notebook_code.that_ran(ran(SOURCES), 1) == (False, "")


def test_of_files_of_one_kind_only_those_that_are_used_count(notebook: Path) -> None:
    folder = notebook.parent.resolve() / "params"
    folder.mkdir()
    (folder / "theirs.yaml").write_text("depth: 3\n")
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["add", "-A"], ["commit", "-qm", "two"]):
        subprocess.run([*git, *command], check=True)
    (folder / "theirs.yaml").write_text("depth: 4\n")
    (folder / "own.yaml").write_text("depth: 5\n")
    notebook_code = provenance(notebook)
    assert notebook_code.at_start["dirty"] is True  # no cell has said yet which it uses
    notebook_code.use(str(folder / "*.yaml"), [])
    assert notebook_code.that_ran(ran(SOURCES), 1) == (False, "")
    notebook_code.use(str(folder / "*.yaml"), [str(folder / "own.yaml")])
    assert notebook_code.that_ran(ran(SOURCES), 1) == (True, "# in no commit: params/own.yaml\n")
    notebook_code.use(str(folder / "*.yaml"), [str(folder / "theirs.yaml")])
    dirty, patch = notebook_code.that_ran(ran(SOURCES), 1)
    assert dirty and "own.yaml" in patch and "\n-depth: 3\n+depth: 4\n" in patch


def test_text_and_outputs_are_no_code(notebook: Path) -> None:
    cells = json.loads(notebook.read_text())["cells"]
    cells[0]["source"], cells[1]["execution_count"] = "Other words", 7
    save(notebook.parent, cells)
    version = code_version(notebook.parent)
    assert version is not None and version[1] is False


def test_a_module_that_was_edited_since_counts_from_the_next_attempt_on(notebook: Path) -> None:
    notebook_code = provenance(notebook)
    assert notebook_code.at_start["dirty"] is False
    (notebook.parent / "module.py").write_text("x = 2\n")
    assert notebook_code.that_ran(ran(SOURCES), 1) == (False, "")
    notebook_code.recheck(2)
    (notebook.parent / "module.py").write_text("x = 1\n")
    dirty, patch = provenance(notebook).that_ran(ran(SOURCES), 2)  # a sender that reads the journal again
    assert dirty and "+x = 2\n" in patch


def test_what_was_committed_while_the_notebook_ran_differs_from_the_commit_that_it_began_with(notebook: Path) -> None:
    notebook_code = provenance(notebook)
    assert notebook_code.at_start["commit"]
    save(notebook.parent, [code(source, name) for name, source in (SOURCES | {"b": "fit(depth=3)"}).items()])
    git = ["git", "-C", str(notebook.parent), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "commit", "-qam", "two"], check=True)
    dirty, patch = notebook_code.that_ran(ran(SOURCES | {"b": "fit(depth=3)"}), 1)
    assert dirty and "+fit(depth=3)\n" in patch


def test_what_is_masked_where_it_ran_is_not_shown_by_the_patch(notebook: Path) -> None:
    masked = SOURCES["c"].replace("swordfish", MASK)
    assert provenance(notebook).that_ran(ran(SOURCES | {"c": masked}), 1) == (False, "")
    dirty, patch = provenance(notebook).that_ran(ran(SOURCES | {"c": f"{masked}\nmore()"}), 1)
    assert dirty and "+more()" in patch and NOT_SHOWN in patch and "swordfish" not in patch

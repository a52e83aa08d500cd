"""One rich execution in a checkout of its own, and what of it has to be on the run, or must not be."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import pytest
from mlflow.entities import Run

# Put together here and in the cells, so that no source contains a whole one.
LOGGED, COMMITTED = "ghp_" + "a1B2" * 9, "ghp_" + "c3D4" * 9
AMBIENT = "quiet-lagoon-4711"  # of a variable whose name is no secret's
CELLS = (
    "import mlflow\nprint('one')",
    "from IPython.display import clear_output, display\n"
    "handle = display('first', display_id=True)\nprint('between')\nhandle.update('second')",
    "print('gone')\nclear_output()\nprint('gone too')\nclear_output(wait=True)\nprint('last')\n6 * 7",
    "import time\ntime.sleep(0.3)\nhandle.update('third')",  # how long a cell takes is recorded
    "mlflow.log_param('note', 'ghp_' + 'a1B2' * 9)\nmlflow.set_tag('said', 'with ghp_' + 'a1B2' * 9 + ' in it')",
    "mlflow.log_param('wide', 7000 * 'w')\nmlflow.set_tag('deep', 9000 * 'd')",
    "with mlflow.start_run(run_name='inner', nested=True):\n    mlflow.log_params({'high': 6500 * 'h', 'kept': 1})",
)


@pytest.fixture(scope="module")
def runs(shared: Any) -> dict[str, Run]:
    """The executed notebook's run and its child, by name; a module of the checkout has changed."""
    (shared.folder / "module.py").write_text("x = 1\n")
    git = ["git", "-C", str(shared.folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "module.py"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    (shared.folder / "module.py").write_text(f"x = 1\ny = '{COMMITTED}'\n")
    cells = [nbformat.v4.new_code_cell(source, id=f"cell-{number}") for number, source in enumerate(CELLS)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path = shared.write("rich.ipynb", nbformat.v4.new_notebook(cells=cells, metadata=kernel))
    done = shared.papermill(path, ODD_SETTING=AMBIENT)
    assert done.returncode == 0, done.stderr
    return {run.info.run_name: run for run in shared.runs("rich", count=2)}


@pytest.fixture(scope="module")
def everything(shared: Any, runs: dict[str, Run]) -> dict[str, str]:
    """All that the server has of the two runs, as text: parameters, tags and every artifact."""
    texts = {}
    for name, run in runs.items():
        texts[f"{name}: parameters and tags"] = json.dumps([run.data.params, run.data.tags])
        for folder, _, files in os.walk(shared.download(run_id=run.info.run_id, artifact_path="")):
            texts |= {f"{name}: {file}": (Path(folder) / file).read_text("utf-8") for file in files}
    return texts


def test_the_executed_notebook_is_papermills(shared: Any, runs: dict[str, Run]) -> None:
    """Also where a later cell has changed what an earlier one shows; the server's id replaces a local one."""
    ours = shared.artifact(runs["rich"], "rich.ipynb")["cells"]
    inner = runs["inner"]
    shown = (shared.folder / "out.ipynb").read_text("utf-8")
    shown = shown.replace(inner.data.tags.get("pokebattle.local_id", inner.info.run_id), inner.info.run_id)
    theirs = nbformat.reads(shown, 4).cells
    assert [cell["outputs"] for cell in ours] == [cell.outputs for cell in theirs]
    assert all("seconds" in cell["metadata"] and "papermill" not in cell["metadata"] for cell in ours)
    assert "third" in str(ours[1]["outputs"]) and "gone" not in str(ours[2]["outputs"])


def test_the_cells_are_recorded_with_their_numbers_and_seconds(shared: Any, runs: dict[str, Run]) -> None:
    cells = shared.artifact(runs["rich"], "cells.json")
    assert [(cell["cell"], cell["source"]) for cell in cells] == list(enumerate(CELLS, 1))
    points = shared.client.get_metric_history(runs["rich"].info.run_id, "cell/seconds")
    assert [cell["seconds"] for cell in cells] == [point.value for point in points]
    assert 0.3 <= cells[3]["seconds"] < 3
    assert runs["rich"].data.tags["pokebattle.order"] == "top to bottom"


def test_a_key_in_a_changed_module_and_in_what_cells_log_is_masked(
    runs: dict[str, Run], everything: dict[str, str]
) -> None:
    assert "+y = '[masked]'" in everything["rich: code.patch"]
    assert runs["rich"].data.params["note"] == "[masked]"
    assert runs["rich"].data.tags["said"] == "with [masked] in it"
    assert [where for where, text in everything.items() if LOGGED in text or COMMITTED in text] == []


def test_the_environment_is_nowhere(everything: dict[str, str]) -> None:
    assert len(everything) > 4
    assert [where for where, text in everything.items() if AMBIENT in text or "ODD_SETTING" in text] == []


def test_what_is_too_long_is_cut_and_said(runs: dict[str, Run]) -> None:
    outer, inner = runs["rich"].data, runs["inner"].data
    assert (outer.params["wide"], outer.tags["deep"]) == (6000 * "w", 8000 * "d")
    assert (inner.params["high"], inner.params["kept"]) == (6000 * "h", "1")
    cut = outer.tags["pokebattle.cut"]
    assert "wide (7000)" in cut and "deep (9000)" in cut and "high (6500)" in cut


def test_the_first_tags_are_those_a_person_wants(runs: dict[str, Run]) -> None:
    """MLflow shows them in the order in which they came, without its own."""
    shown = [key for key in runs["rich"].data.tags if not key.startswith("mlflow.")]
    assert shown[:2] == ["pokebattle.executor", "pokebattle.git.dirty"]
    assert "pokebattle.kernel" not in shown and "pokebattle.pid" not in shown

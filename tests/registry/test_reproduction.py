"""A run is executed again only from what its record contains, and what cannot be had is named."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pokebattle.registry import reproduction
from pokebattle.registry.worktree import WorktreeError, apply_patch

EXECUTED = {
    "metadata": {"papermill": {"parameters": {"version": "v3"}}, "pokebattle": {"schema": "params"}},
    "cells": [
        {"cell_type": "markdown", "source": "# Title", "metadata": {}},
        {
            "cell_type": "code",
            "source": 'version: str = "sample"',
            "metadata": {"tags": ["parameters"]},
            "outputs": [],
            "execution_count": 1,
        },
        {
            "cell_type": "code",
            "source": 'version = "v3"',
            "metadata": {"tags": ["injected-parameters"]},
            "outputs": [],
            "execution_count": 2,
        },
        {"cell_type": "code", "source": "# no-track", "metadata": {}, "outputs": [], "execution_count": 3},
        {"cell_type": "code", "source": "print(1)", "metadata": {}, "outputs": [{"text": "1"}], "execution_count": 4},
    ],
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A checkout with one commit of one file."""
    (tmp_path / "a.py").write_text("x = 1\n")
    for words in (
        ["init", "--quiet"],
        ["add", "a.py"],
        ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "--message", "a"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


def test_a_notebook_is_what_it_was_before_it_ran(tmp_path: Path) -> None:
    clean = reproduction._clean(EXECUTED)
    sources = [cell["source"] for cell in clean["cells"]]
    assert sources == ["# Title", 'version: str = "sample"', "# no-track", "print(1)"]
    assert clean["cells"][-1]["outputs"] == [] and clean["cells"][-1]["execution_count"] is None
    stored = json.loads(json.dumps(clean))
    stored["cells"][2]["source"] = "# no-track\nsecret = 1"
    notebook = tmp_path / "n.ipynb"
    assert reproduction._differs(EXECUTED, notebook)
    notebook.write_text(json.dumps(stored))
    assert not reproduction._differs(EXECUTED, notebook)
    stored["cells"][3]["source"] = "print(2)"
    notebook.write_text(json.dumps(stored))
    assert reproduction._differs(EXECUTED, notebook)


def test_parameters_are_what_papermill_was_given_and_nothing_is_registered() -> None:
    given = reproduction._parameters(EXECUTED, {"pokebattle.tuned_from": "abc"})
    assert given == {"version": "v3", "tuned_from": "abc", "register_model": False}
    assert reproduction._parameters({"metadata": {}}, {}) == {}


def test_a_patch_is_applied_and_what_it_cannot_hold_is_named(repository: Path) -> None:
    (repository / "a.py").write_text("x = 2\n")
    patch = subprocess.run(["git", "diff"], cwd=repository, capture_output=True, text=True, check=True).stdout
    subprocess.run(["git", "checkout", "--quiet", "."], cwd=repository, check=True)
    assert apply_patch(repository, f"# in no commit: b.py\n{patch}") == ["in no commit: b.py"]
    assert (repository / "a.py").read_text() == "x = 2\n"
    with pytest.raises(WorktreeError, match="does not apply to the commit"):
        apply_patch(repository, patch)
    with pytest.raises(WorktreeError, match="is incomplete"):
        apply_patch(repository, f"{patch}# cut: the patch has 9 characters\n")


def test_every_difference_and_drift_is_named() -> None:
    def run(metrics: dict[str, Any], **params: str) -> dict[str, Any]:
        data = {
            "metrics": [{"key": key, "value": value} for key, value in metrics.items()],
            "params": [{"key": key, "value": value} for key, value in params.items()],
        }
        return {"data": data}

    before = run({"log_loss": 0.1, "only": 1.0, "fit/xgboost/seconds": 3.0}, dataset_digest="a", max_depth="3")
    after = run({"log_loss": 0.1 + 1e-16, "fit/xgboost/seconds": 4.0}, dataset_digest="b", max_depth="3")
    verdict, compared, differences = reproduction._compared(before, after)
    assert (verdict, compared) == ("different", 3)
    assert differences == ["dataset_digest a → b", f"log_loss 0.1 → {0.1 + 1e-16}", "only 1.0 → missing"]
    assert reproduction._compared(before, before)[:2] == ("same", 3)
    assert reproduction._compared(run({"excess": "NaN"}), run({"excess": "NaN"})) == ("same", 1, [])
    assert reproduction._compared(run({}), run({})) == ("different", 0, [])
    none = reproduction.Reproduction("a", "b", "different", 0, (), ("lock: x → y",))
    assert none.text == "the run has no metrics or digests to compare; drifted: lock: x → y"

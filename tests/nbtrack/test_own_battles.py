"""Battles from two CSV files go the way of any other version: trained, judged, registered, loaded elsewhere."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

PREDICT = """
import json
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model("models:/own_battle_winner/1")
pairs = pd.DataFrame({"species_a": ["K01", "K40"], "species_b": ["K17", "K02"]})
swapped = pairs.rename(columns={"species_a": "species_b", "species_b": "species_a"})
there, back = model.predict(pairs), model.predict(swapped)
try:
    model.predict(pd.DataFrame({"species_a": ["K01"], "species_b": ["pikachu"]}))
except ValueError as error:
    refusal = str(error)
print(json.dumps({"p": list(there), "sums": list(there + back), "refusal": refusal,
                  "inputs": model.metadata.signature.inputs.input_names()}))
"""


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """The notebooks in a folder of their own."""
    folder = tmp_path_factory.mktemp("own")
    for name in ("train", "evaluate"):
        shutil.copy(root / "notebooks" / f"{name}.ipynb", folder)
    return folder


def outputs(folder: Path) -> str:
    cells = json.loads((folder / "out.ipynb").read_text())["cells"]
    return "".join(
        text
        for cell in cells
        for output in cell.get("outputs", [])
        for text in output.get("data", {}).get("text/plain", [])
    )


@pytest.mark.long
def test_a_model_of_own_battles_is_registered_and_predicts_elsewhere(tracked: Any, copied: Path) -> None:
    tracked.folder = copied
    done = tracked.papermill(copied / "train.ipynb", "-p", "version", "own", "-p", "n_bootstrap", "20")
    assert done.returncode == 0, done.stderr
    (run,) = tracked.runs("battle_winner_own")
    assert run.data.params["dataset_version"] == "tables"
    assert run.data.metrics["log_loss"] < run.data.metrics["baseline_constant_log_loss"]
    assert "baseline_faster_species_log_loss" in run.data.metrics
    assert "baseline_damage_race_log_loss" not in run.data.metrics
    manifest = tracked.artifact(run, "data/tables.json")
    assert manifest["files"]["docs/own-battles/battles.csv"]["rows"] == 1500
    said = outputs(copied)
    assert "2 battles without a winner left out" in said
    assert "there are no moves" in said

    loaded = tracked.execute("python", "-c", PREDICT)
    assert loaded.returncode == 0, loaded.stderr
    answer = json.loads(loaded.stdout.splitlines()[-1])
    assert answer["inputs"] == ["species_a", "species_b"]
    assert all(0 < p < 1 for p in answer["p"])
    assert all(abs(total - 1) < 1e-12 for total in answer["sums"])
    assert answer["refusal"].startswith("species_b: unknown id, got 'pikachu'")

    registered = ["-p", "version", "own", "-p", "n_bootstrap", "20", "-p", "model", "own_battle_winner/1"]
    done = tracked.papermill(copied / "evaluate.ipynb", *registered)
    assert done.returncode == 0, done.stderr
    said = outputs(copied)
    assert f"model  {run.data.metrics['log_loss']:.3f} [" in said
    assert "these battles have no moves to choose among" in said


def test_what_needs_moves_is_refused_before_a_kernel_starts(tracked: Any, copied: Path) -> None:
    tracked.folder = copied
    done = tracked.papermill(copied / "train.ipynb", "-p", "version", "own", "-p", "features", "mechanics")
    assert done.returncode != 0
    assert "-p features: expected raw, as dataset is tables, got 'mechanics', which needs" in done.stderr


def test_a_cell_that_cannot_be_used_is_one_line_and_the_reason_of_the_run(
    tracked: Any, copied: Path, root: Path, tmp_path: Path
) -> None:
    tracked.folder = copied
    for name in ("species", "battles"):
        shutil.copy(root / "docs" / "own-battles" / f"{name}.csv", tmp_path)
    battles = (tmp_path / "battles.csv").read_text().replace("Talrako;Talzeto;Talrako", "Talrako;Talzeto;Talrak")
    (tmp_path / "battles.csv").write_text(battles)
    params = tmp_path / "params"
    params.mkdir()
    text = (root / "params" / "own.yaml").read_text().replace("docs/own-battles", str(tmp_path))
    (params / "mine.yaml").write_text(text.replace("version: own", "version: mine"))
    done = tracked.papermill(copied / "train.ipynb", "-p", "version", "mine", POKEBATTLE_PARAMS=str(params))
    assert done.returncode != 0
    expected = f"{tmp_path}/battles.csv, row 2, column Venkinto: expected one of the two species in this row"
    assert f"TablesError: {expected}" in done.stderr
    assert "sheets.py" not in done.stderr
    (run,) = tracked.runs("battle_winner_mine")
    assert run.info.status == "FAILED"

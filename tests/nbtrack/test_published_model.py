"""train.ipynb, executed as users do, publishes a model that anyone can load without unpickling anything."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from faults import FaultProxy

PREDICT = """
import json, sys
import mlflow, pandas as pd
from pokebattle.learning.features import mirror
model = mlflow.pyfunc.load_model("models:/battle_winner/1")
matchups = pd.DataFrame([["bulbasaur", "charmander", "sludgebomb", "flareblitz", "best_move"],
                         ["abra", "zubat", "psychic", "airslash", "best_move"]],
                        columns=["species_a", "species_b", "move_a", "move_b", "policy"])
there, back = model.predict(matchups), model.predict(mirror(matchups))
print(json.dumps({"p": list(map(float, there)), "sums": list(map(float, there + back)),
                  "inputs": model.metadata.signature.inputs.input_names()}))
"""


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """The notebook in a folder of its own."""
    folder = tmp_path_factory.mktemp("published")
    shutil.copy(root / "notebooks" / "train.ipynb", folder)
    return folder


def test_a_registered_model_loads_elsewhere_and_is_antisymmetric(tracked: Any, copied: Path, tmp_path: Path) -> None:
    tracked.folder = copied
    options = ["-p", "register_model", "True", "-p", "n_estimators", "20", "-p", "n_bootstrap", "20"]
    done = tracked.papermill(copied / "train.ipynb", *options)
    assert done.returncode == 0, done.stderr
    (run,) = [run for run in tracked.runs("battle_winner_sample") if run.data.params["n_estimators"] == "20"]
    for name in (
        "test_accuracy",
        "train_accuracy",
        "precision",
        "recall",
        "f1_score",
        "roc_auc",
        "log_loss",
        "brier",
        "calibration_error",
        "bayes_log_loss",
        "excess_percent",
    ):
        assert name in run.data.metrics, name
    for name in (
        "model_type",
        "dataset_version",
        "dataset_digest",
        "n_features",
        "training_samples",
        "test_samples",
        "n_matchups",
        "n_battles",
    ):
        assert name in run.data.params, name
    data = {item.tags[0].value: item.dataset.digest for item in run.inputs.dataset_inputs}
    assert data == dict.fromkeys(("training", "test"), run.data.params["dataset_digest"][:36])
    assert {tag for tag in run.data.tags if "opened" in tag} == {"pokebattle.opened.test"}

    version = tracked.client.get_model_version("battle_winner", "1")
    assert version.run_id == run.info.run_id
    (output,) = run.outputs.model_outputs
    of_model = {metric.key: metric.value for metric in tracked.client.get_logged_model(output.model_id).metrics}
    assert of_model["log_loss"] == run.data.metrics["log_loss"]
    loaded = tracked.execute("python", "-c", PREDICT)
    assert loaded.returncode == 0, loaded.stderr
    answer = json.loads(loaded.stdout.splitlines()[-1])
    assert answer["inputs"] == ["species_a", "species_b", "move_a", "move_b", "policy"]
    assert all(0 < p < 1 for p in answer["p"])
    assert all(abs(total - 1) < 1e-12 for total in answer["sums"])


def test_nothing_in_a_registered_model_is_pickled(tracked: Any, copied: Path) -> None:
    folder = tracked.download(artifact_uri="models:/battle_winner/1")
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert {"MLmodel", "booster.ubj", "features.json", "input_example.json", "requirements.txt"} <= {
        f.name for f in files
    }
    assert not [file for file in files if file.suffix in {".pkl", ".pickle", ".joblib", ".cloudpickle"}]
    assert not [
        file for file in files if zipfile.is_zipfile(file) or file.read_bytes()[:2] in {b"\x80\x04", b"\x80\x05"}
    ]
    requirements = (folder / "requirements.txt").read_text().split()
    assert all("==" in line for line in requirements)
    assert not [line for line in requirements if line.startswith("xgboost==")] or len(requirements) > 1


def test_without_a_server_it_is_registered_later_and_says_so(
    tracked: Any, copied: Path, mlflow_server: str, tmp_path: Path
) -> None:
    state = {"POKEBATTLE_STATE": str(tmp_path / "state")}
    options = ["-p", "register_model", "True", "-p", "n_estimators", "5", "-p", "n_bootstrap", "20"]
    with FaultProxy(mlflow_server) as proxy:
        proxy.mode = "refuse"
        away = type(tracked)(copied, proxy.uri)
        done = away.papermill(copied / "train.ipynb", *options, "-p", "model_name", "later_winner", **state)
        assert done.returncode == 0, done.stderr
        cells = json.loads((copied / "out.ipynb").read_text())["cells"]
        shown = [output for cell in cells for output in cell.get("outputs", [])][-2]["data"]["text/plain"]
        assert "later_winner will be registered as soon as" in "".join(shown)
        proxy.mode = "pass"
        assert away.execute("python", "-m", "pokebattle", "sync", **state).returncode == 0
    assert tracked.client.get_model_version("later_winner", "1").status == "READY"


@pytest.mark.long
def test_off_saves_the_model_to_a_folder_and_says_so(tracked: Any, copied: Path, root: Path) -> None:
    tracked.folder = copied
    options = ["-p", "register_model", "True", "-p", "n_estimators", "5", "-p", "n_bootstrap", "20"]
    done = tracked.papermill(
        copied / "train.ipynb", *options, "-p", "model_name", "untracked_winner", POKEBATTLE_TRACKING="off"
    )
    assert done.returncode == 0, done.stderr
    texts = json.loads((copied / "out.ipynb").read_text())["cells"]
    shown = [output for cell in texts for output in cell.get("outputs", [])][-2]
    assert "tracking is off" in "".join(shown["data"]["text/plain"])
    folder = root / "build" / "models" / "untracked_winner_sample"
    assert {file.name for file in folder.iterdir()} == {"booster.ubj", "features.json"}
    shutil.rmtree(folder)


@pytest.mark.long
def test_where_a_formula_decides_no_excess_is_published(tracked: Any, copied: Path, root: Path) -> None:
    tracked.folder = copied
    small = {"max_matchups": 2000, "n_estimators": 5, "n_bootstrap": 20}
    chosen = {"version": "v1", "register_model": False, "model_name": "of_a_formula", **small}
    options = [word for name, value in chosen.items() for word in ("-p", name, str(value))]
    done = tracked.papermill(copied / "train.ipynb", *options)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(root / "build" / "models" / "of_a_formula_v1")
    (run,) = tracked.runs("battle_winner_v1")
    assert run.data.params["dataset_version"] == "v1"
    assert 0 < run.data.metrics["log_loss"] < run.data.metrics["baseline_constant_log_loss"]
    assert not [name for name in run.data.metrics if "excess" in name or "bayes" in name]
    figures = f"log-loss **{run.data.metrics['log_loss']:.3f}**"
    assert run.data.tags["mlflow.note.content"].startswith(f"Test part, protocol pair: {figures} [")

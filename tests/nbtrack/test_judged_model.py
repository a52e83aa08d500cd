"""evaluate.ipynb judges a registered model on the battles that it was trained under, and on no others."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pokebattle.datasets import load_battles
from pokebattle.evaluation.placeholders import is_note
from pokebattle.params import ParamsError
from pokebattle.registry import load_registered, registered_versions
from pokebattle.registry.stages import RegistryError

REGISTER = """
from pokebattle.datasets import load_battles
from pokebattle.model import BattleWinner
from pokebattle.params import load_params
from pokebattle.registry import publish
params = load_params(globals())
battles = load_battles(params.dataset, params.protocol, params.max_matchups, params.max_judging_pairs)
winner = BattleWinner.from_params(params)
winner.fit(battles.training, battles.training["wins_a"], battles.training["n_battles"])
publish(winner, params, {"log_loss": 0.25, "excess_percent": 12.5, "test_accuracy": 0.9}, battles)
"""
SMALL: dict[str, Any] = {
    "max_matchups": 400,
    "max_judging_pairs": 20,
    "n_estimators": 12,
    "n_bootstrap": 20,
    "features": "raw",
}


def options(**chosen: Any) -> list[str]:
    return [word for name, value in (SMALL | chosen).items() for word in ("-p", name, str(value))]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    folder = tmp_path_factory.mktemp("judged")
    shutil.copy(root / "notebooks" / "evaluate.ipynb", folder)
    return folder


@pytest.fixture
def registered(tracked: Any, copied: Path, make_notebook: Any) -> Any:
    """A server with version 1 of `judged_winner`, which is registered once."""
    tracked.folder = copied
    if not (copied / "register.ipynb").exists():
        document = make_notebook(
            REGISTER,
            parameters='version: str = "sample"  # a file in params/',
            metadata={"pokebattle": {"schema": "params"}},
        )
        path = tracked.write("register.ipynb", document)
        done = tracked.papermill(path, *options(register_model=True, model_name="judged_winner"))
        assert done.returncode == 0, done.stderr
        tracked.runs("register")
    return tracked


def shown(folder: Path) -> str:
    cells = json.loads((folder / "out.ipynb").read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "\n".join("".join(output.get("data", {}).get("text/plain", "")) for output in outputs)


@pytest.mark.long
def test_a_registered_model_is_judged_beside_its_versions(registered: Any, copied: Path) -> None:
    chosen = options(model="judged_winner/1", n_estimators=300, compare=False)
    done = registered.papermill(copied / "evaluate.ipynb", *chosen)
    assert done.returncode == 0, done.stderr
    said = shown(copied)
    (first,) = [line for line in said.splitlines() if line.startswith("trees")]
    assert first.split()[-1] == "12"
    (row,) = [line.split() for line in said.splitlines() if line.startswith("1 ") and "sample" in line]
    assert row == ["1", "sample", "v3", "pair", "raw", "0.25", "12.5", "0.9"]


@pytest.mark.parametrize(
    ("model", "protocol", "expected"),
    [
        ("judged_winner/1", "one_unseen", "judged_winner/1 was trained on other battles than these: version sample, "),
        ("judged_winner/7", "pair", "has no judged_winner/7; versions of judged_winner: 1"),
        ("judged_winner", "pair", "expected name/version, as in battle_winner/3, got 'judged_winner'"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_one_line(
    registered: Any, monkeypatch: pytest.MonkeyPatch, model: str, protocol: str, expected: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registered.uri)
    battles = load_battles("v3", protocol, SMALL["max_matchups"], SMALL["max_judging_pairs"])
    with pytest.raises(ParamsError) as error:
        load_registered(model, battles)
    assert str(error.value).startswith("model: ") and expected in str(error.value)
    assert "\n" not in str(error.value)


def test_where_no_server_answers_nothing_is_loaded_and_nothing_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("POKEBATTLE_TRACKING", "on")
    with pytest.raises(RegistryError, match=r"no MLflow server answers at \S+:9"):
        load_registered("judged_winner/1", load_battles("v3", "pair", 50, 5))
    assert is_note(registered_versions("judged_winner"))


def test_with_tracking_off_no_versions_are_listed(registered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registered.uri)
    monkeypatch.setenv("POKEBATTLE_TRACKING", "on")
    assert registered_versions("judged_winner").index.tolist() == [1]
    monkeypatch.setenv("POKEBATTLE_TRACKING", "off")
    assert is_note(registered_versions("judged_winner"))

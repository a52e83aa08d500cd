"""What the registry serves is looked at before it is loaded: a pickle, a foreign or a changed model never is."""

import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from pokebattle.datasets import load_battles
from pokebattle.params import ParamsError
from pokebattle.registry import files, load_registered, stages

PLANTED = "PLANTED_BY_A_PICKLE"


class Plant:
    """What leaves a mark when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"import os; os.environ[{PLANTED!r}] = 'yes'",)


@pytest.fixture
def client(rest: Any) -> Iterator[mlflow.MlflowClient]:
    """mlflow on the test server, and as it was afterwards."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(rest.uri)
    yield mlflow.MlflowClient(rest.uri, rest.uri)
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(before)


@pytest.fixture
def copied(rest: Any, client: mlflow.MlflowClient, trained: str, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Registers a copy of the good model, spoilt by a function of its folder; gives the version's name."""

    def register(spoil: Callable[[Path], None] = lambda folder: None, name: str = "spoilt") -> str:
        good = stages.read(rest, "battle_winner").versions[1]
        folder = Path(mlflow.artifacts.download_artifacts("models:/battle_winner/1", dst_path=str(tmp_path / "model")))
        for file in (folder / "code").rglob("*.*"):
            if file.name != "__init__.py":  # a few will do
                file.unlink()
        (folder / "registered_model_meta").unlink(missing_ok=True)
        spoil(folder)
        digest = client.get_run(good.run_id).data.params[files.DIGEST]
        with mlflow.start_run() as run:
            mlflow.log_param(files.DIGEST, digest)
            model = client.create_logged_model(run.info.experiment_id, source_run_id=run.info.run_id)
            client.log_model_artifacts(model.model_id, str(folder))
            client.finalize_logged_model(model.model_id, "READY")
        shutil.rmtree(tmp_path / "model")
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        made = client.create_model_version(name, f"models:/{model.model_id}", run.info.run_id, model_id=model.model_id)
        return f"{name}/{made.version}"

    yield register


def refusal(name: str) -> str:
    """The one line with which a version is not loaded."""
    with pytest.raises(files.ForeignModelError) as error:
        load_registered(name, BATTLES())
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(f"model: {name} is not loaded: ")


def BATTLES() -> Any:  # noqa: N802
    return load_battles("v3", "pair", 800, 60)


def test_the_version_that_train_registered_is_loaded(trained: str, copied: Callable[..., str]) -> None:
    for name in ("battle_winner/1", copied()):
        assert load_registered(name, BATTLES()).booster_.num_boosted_rounds() == 40


def edit(old: str, new: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        text = (folder / "MLmodel").read_text()
        assert re.search(old, text)
        (folder / "MLmodel").write_text(re.sub(old, new, text, count=1))

    return spoil


def add(path: str, content: bytes = b"x") -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)

    return spoil


@pytest.mark.parametrize(("spoil", "expected"), [
    (add("python_model.pkl", pickle.dumps(Plant())), "it holds a pickle, python_model.pkl"),
    (add("data/model/more/weights.PT"), "it holds a pickle, data/model/more/weights.PT"),
    (add("code/sitecustomize.py"), "it holds code/sitecustomize.py, which no model of ours has"),
    (add("data/model/booster.json"), "it holds data/model/booster.json, which no model of ours has"),
    (add("data/model/booster.ubj"), "its files are not the ones that were registered: digest expected"),
    (add("data/model/features.json", b"{}"), "its files are not the ones that were registered: digest expected"),
    (lambda folder: (folder / "data/model/booster.ubj").unlink(), "data/model/booster.ubj is missing"),
    (lambda folder: (folder / "MLmodel").unlink(), "MLmodel is missing"),
    (edit("loader_module: pokebattle.model", "loader_module: mlflow.sklearn"),
     "MLmodel, loader_module: expected pokebattle.model, got 'mlflow.sklearn'"),
    (edit("data: data/model", "data: code"), "MLmodel, data: expected data/model, got 'code'"),
    (edit("flavors:\n", "flavors:\n  sklearn:\n    pickled_model: model.bin\n"),
     "MLmodel names sklearn, which no model of ours has"),
    (edit("    loader_module", "    python_model: model.bin\n    loader_module"),
     "MLmodel names python_model, which no model of ours has"),
    (add("MLmodel", b"flavors: [\n"), "MLmodel cannot be read (ParserError)"),
    (add("MLmodel", b"!!python/object/apply:os.getcwd []\n"), "MLmodel cannot be read (ConstructorError)"),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_what_is_not_ours_is_refused_by_name(copied: Callable[..., str], spoil: Any, expected: str) -> None:
    assert refusal(copied(spoil)).startswith(expected)
    assert PLANTED not in os.environ


def test_real_pickles_of_mlflow_are_refused(rest: Any, client: mlflow.MlflowClient, trained: str) -> None:
    class Planted(mlflow.pyfunc.PythonModel):
        def predict(self, context: Any, model_input: list[str], params: Any = None) -> list[str]:
            return model_input

    with mlflow.start_run():
        mlflow.log_param(files.DIGEST, "0" * 64)
        mlflow.pyfunc.log_model(name="model", python_model=Planted(), pip_requirements=["mlflow"],
                                registered_model_name="foreign")  # fmt: skip
    assert refusal("foreign/1") == "it holds a pickle, python_model.pkl"


def test_a_version_without_a_run_that_vouches_is_refused(rest: Any, client: mlflow.MlflowClient, trained: str) -> None:
    client.create_registered_model("unvouched")
    client.create_model_version("unvouched", "s3://a/bucket")
    assert refusal("unvouched/1") == "no run vouches for its files"
    other = stages.read(rest, "battle_winner").versions[1]
    with mlflow.start_run() as run:
        pass
    model_id = other.source.removeprefix("models:/")
    client.create_model_version("unvouched", other.source, run.info.run_id, model_id=model_id)
    assert refusal("unvouched/2").startswith("its run names no model_digest")
    with mlflow.start_run() as run:
        mlflow.log_param(files.DIGEST, client.get_run(other.run_id).data.params[files.DIGEST])
    client.create_model_version("unvouched", other.source, run.info.run_id, model_id=model_id)
    assert refusal("unvouched/3").startswith("its source was logged by another run")


def test_the_code_beside_a_model_is_not_imported(copied: Callable[..., str]) -> None:
    spoil = add("code/pokebattle/model.py", f"import os; os.environ[{PLANTED!r}] = 'yes'".encode())
    assert load_registered(copied(spoil), BATTLES()).features == "mechanics"
    assert PLANTED not in os.environ


def test_other_battles_are_refused(trained: str, rest: Any) -> None:
    with pytest.raises(ParamsError, match="was trained on other battles than these; its version is sample"):
        load_registered("battle_winner/1", load_battles("v3", "one_unseen", 800, 60))

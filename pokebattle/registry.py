"""Publishes a trained model, to MLflow's registry or to a local folder, and loads it again."""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pokebattle.battles import MATCHUP
from pokebattle.params import ParamsError
from pokebattle.places import project
from pokebattle.tracking.kernel.extension import current
from pokebattle.tracking.server import answers
from pokebattle.tracking.settings import enabled, tracking_uri

if TYPE_CHECKING:
    from pokebattle.datasets import BattleSet
    from pokebattle.model import BattleWinner
    from pokebattle.params import Params

NEEDED = ["xgboost-cpu", "xgboost", "scikit-learn", "scipy", "pandas", "numpy", "numba"]  # when it predicts


@dataclass(frozen=True)
class Published:
    """Where a model went.

    Attributes
    ----------
    text : str
        One sentence.
    link : str
        Address of the registered version, of the run, or the local folder.
    """

    text: str
    link: str

    def __repr__(self) -> str:
        return f"{self.text}\n{self.link}"


def publish(model: "BattleWinner", params: "Params", metrics: Mapping[str, float], battles: "BattleSet") -> Published:
    """Put the figures on the run and register the model.

    The model is registered as ``params.model_name`` when ``params.register_model`` says so and the execution is
    tracked, later if the server is away; in any other case it is saved to ``build/models`` and the reason is given.

    Parameters
    ----------
    model : BattleWinner
        A fitted model.
    params : Params
        The version that it was trained under.
    metrics : mapping of str to float
        Figures of merit.
    battles : BattleSet
        What it was trained and evaluated on.
    """
    execution = current()
    facts = metadata(model, params, battles)
    if execution:
        execution.emit("metrics", values=dict(metrics))
        execution.emit("params", values=facts)
    if not params.register_model:
        return _save(model, params, "register_model is false")
    if execution is None:
        return _save(model, params, "tracking is off")
    known = [name for name in MATCHUP if name in battles.training]
    return _register(model, params, battles.training[known].head(3), facts, execution.uri)


def keep(model: "BattleWinner", params: "Params") -> str:
    """Keep a model without registering it: with the run, as `best_model`, or under `build/models`; say where it is."""
    execution = current()
    if execution is None:
        return _save(model, params, "tracking is off").text
    with tempfile.TemporaryDirectory() as folder:
        for file in sorted(model.save(folder).iterdir()):
            if staged := execution.journal.stage(file.read_bytes()):
                execution.emit("artifact", path=f"{execution.start['root']}/best_model/{file.name}", file=staged)
    return "The best model is kept with the run, as best_model; train.ipynb registers."


def metadata(model: "BattleWinner", params: "Params", battles: "BattleSet") -> dict[str, Any]:
    """Return what a reader of the run must know about model and data."""
    sizes = battles.sizes().groupby(level="part").sum()
    return {
        "model_type": "xgboost",
        "dataset_version": battles.name,
        "dataset_digest": battles.digest,
        "n_features": len(model.feature_names),
        "protocol": battles.protocol,
        "training_samples": 2 * len(battles.training),
        "test_samples": int(sizes["matchups"]["test"]),
        "n_matchups": int(sizes["matchups"].sum()),
        "n_battles": int(sizes["battles"].sum()),
    }


def _save(model: "BattleWinner", params: "Params", reason: str) -> Published:
    folder = project() / "build" / "models" / f"{params.model_name}_{params.version}"
    model.save(folder)
    return Published(f"{params.model_name} is not registered ({reason}): it is saved locally.", os.path.relpath(folder))


def _register(
    model: "BattleWinner", params: "Params", example: pd.DataFrame, facts: dict[str, Any], uri: str
) -> Published:
    """Log the model to the run and register it: booster, feature configuration and code, nothing pickled."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    signature = ModelSignature(
        inputs=Schema([ColSpec("string", name) for name in example]),
        outputs=Schema([ColSpec("double", "win_probability")]),
    )
    with tempfile.TemporaryDirectory() as staging:
        data, code = Path(staging) / "model", Path(staging) / "code" / "pokebattle"
        model.save(data)
        _copy_code(code)
        with contextlib.redirect_stderr(io.StringIO()):  # MLflow's log lines; what goes wrong is raised
            logged = mlflow.pyfunc.log_model(
                name="model", loader_module="pokebattle.model", data_path=str(data), code_paths=[str(code)],
            signature=signature, input_example=example, pip_requirements=requirements(),
            registered_model_name=params.model_name,
            metadata={key: str(value) for key, value in facts.items()} | {"version": params.version},
        )  # fmt: skip
    page, number = f"{uri}/#/models/{params.model_name}", str(logged.registered_model_version)
    if not number.isdigit():  # the server takes its time, or is away
        return Published(f"{params.model_name} will be registered as soon as the server has taken it.", page)
    return Published(f"{params.model_name} is registered as version {number}.", f"{page}/versions/{number}")


def load_registered(model: str, battles: "BattleSet") -> "BattleWinner":
    """Load a model from the MLflow server's registry, to judge it on the battles that it was not trained on.

    Parameters
    ----------
    model : str
        Name and version, as `battle_winner/3`.
    battles : BattleSet
        What it is to be judged on: the set, protocol and matchups that it was trained under, or its test part might
        hold what it has learned.

    Returns
    -------
    BattleWinner
        Read from the files that `publish` wrote; nothing is unpickled.

    Raises
    ------
    ParamsError
        If no server answers, there is no such version, it is none of ours, or it was trained under other battles.
    """
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    from pokebattle.model import CONFIG, BattleWinner

    name, _, number = model.partition("/")
    if not number.isdigit():
        raise ParamsError(f"model: expected name/version, as in battle_winner/3, got {model!r}")
    uri = tracking_uri()
    if not answers(uri):
        raise ParamsError(f"model: expected an MLflow server at {uri} that has {model}, and none answers")
    client = MlflowClient(uri, uri)
    try:
        source = client.get_model_version_download_uri(name, number)
    except MlflowException as error:
        found = client.search_model_versions(f"name = '{name}'", order_by=["version_number DESC"])
        known = ", ".join(str(one.version) for one in found) or "none"
        raise ParamsError(f"model: {uri} has no {model}; versions of {name}: {known} ({error.error_code})") from None
    with tempfile.TemporaryDirectory() as folder:
        local = Path(download_artifacts(artifact_uri=source, dst_path=folder, tracking_uri=uri))
        facts = Model.load(local).metadata or {}
        if "dataset_digest" not in facts:
            raise ParamsError(f"model: expected one that train.ipynb registered, got {model}, which names no battles")
        if facts["dataset_digest"] != battles.digest:
            given = f"{facts['dataset_version']} under {facts.get('protocol', '?')}, {facts['dataset_digest']}"
            raise ParamsError(
                f"model: {model} was trained on other battles than these; its version is {facts['version']} ({given}), "
                f"here is {battles.name} under {battles.protocol}, {battles.digest}"
            )
        return BattleWinner.load(next(local.rglob(CONFIG)).parent)


def registered_versions(name: str) -> pd.DataFrame:
    """Return the registered versions of a model with their main figures; empty where no server is asked or answers.

    Returns
    -------
    DataFrame
        Index version, newest first; columns params (the file's name), dataset, protocol, features, log_loss,
        excess_percent, accuracy. What a version's run does not tell is missing. Empty as well when tracking is off.
    """
    columns = ["params", "dataset", "protocol", "features", "log_loss", "excess_percent", "accuracy"]
    uri, rows = tracking_uri(), {}
    if enabled() and answers(uri):
        from mlflow import MlflowClient

        client = MlflowClient(uri, uri)
        for version_ in client.search_model_versions(f"name = '{name}'", order_by=["version_number DESC"]):
            data = client.get_run(version_.run_id).data
            told = [data.params.get(key) for key in ("version", "dataset_version", "protocol", "features")]
            figures = [data.metrics.get(key) for key in ("log_loss", "excess_percent", "test_accuracy")]
            rows[int(version_.version)] = told + figures
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("version")


def requirements() -> list[str]:
    """Return the pinned packages that a loaded model needs, as they are installed here."""
    found = []
    for name in NEEDED:
        try:
            found.append(f"{name}=={version(name)}")
        except PackageNotFoundError:  # one of the two builds of XGBoost
            continue
    return found


def _copy_code(target: Path) -> None:
    """Copy the package's modules and game tables, without battles, notebooks' tooling or caches."""
    package = Path(__file__).parent
    left_out = shutil.ignore_patterns("__pycache__", "battles", "node_modules", "tracking", "cli", "engine", "tuning")
    shutil.copytree(package, target, ignore=left_out)

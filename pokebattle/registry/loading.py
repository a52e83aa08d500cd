"""Load registered models from checked files, and list the registered versions with their metrics."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from nbtrack.mlflow_rest import MlflowRest, metrics_of
from nbtrack.server import answers
from nbtrack.settings import enabled, tracking_uri
from pokebattle.evaluation.placeholders import note
from pokebattle.model import BattleWinner
from pokebattle.params import ParamsError
from pokebattle.registry import stages
from pokebattle.registry.model_files import fetch

if TYPE_CHECKING:
    from pokebattle.datasets import BattleSet


def load_registered(model: str, battles: BattleSet) -> BattleWinner:
    """Load a model from the registry of the MLflow server, to evaluate it.

    Parameters
    ----------
    model : str
        Name and version, such as `battle_winner/3`, or the number alone.
    battles : BattleSet
        The set on which the model will be evaluated. It must be the one that the model was trained on (same set,
        protocol and number of matchups); otherwise its test part could contain pairs that the model has learned.

    Returns
    -------
    BattleWinner
        Read from the files that `publish` wrote. Nothing is unpickled.

    Raises
    ------
    ParamsError
        If there is no such version, or it was trained on other battles.
    RegistryError
        If no server answers, it refuses a request of this account, or this package did not publish the version
        (`model_files.ForeignModelError`).
    """
    name, number = _named(model)
    if not number.isdigit():
        raise ParamsError(f"model: expected name/version, as in battle_winner/3, got {model!r}")
    with stages.connected(name) as rest, tempfile.TemporaryDirectory() as folder:
        files = fetch(rest, _version(rest, name, int(number)), name, Path(folder))
        facts = files.metadata
        if facts.get("dataset_digest") != battles.digest:
            raise ParamsError(
                f"model: {model} was trained on other battles than these: version {facts.get('version')}, "
                f"{facts.get('dataset_version')} under protocol {facts.get('protocol', '?')}, digest "
                f"{facts.get('dataset_digest')}; expected {battles.name} under protocol {battles.protocol}, digest "
                f"{battles.digest}"
            )
        return BattleWinner.load(files.folder)


@dataclass(frozen=True)
class LoadedVersion:
    """A registered version with its model.

    Attributes
    ----------
    name : str
        The registered model.
    version : stages.Version
    model : BattleWinner
    calibration_error : float or None
        Of the version on its test part, 0 to 1; None if its run has none.
    """

    name: str
    version: stages.Version
    model: BattleWinner
    calibration_error: float | None


def load_version(model: str, rest: MlflowRest | None = None) -> LoadedVersion:
    """Load a registered version to predict with it. The model's files are checked, and nothing is unpickled.

    Parameters
    ----------
    model : str
        Name and version, such as `battle_winner/3`, or the number alone. For a name alone, the version in Production,
        else the one in Staging, else the latest.
    rest : MlflowRest, optional
        The server; by default that of this checkout.

    Returns
    -------
    LoadedVersion

    Raises
    ------
    ParamsError
        If `model` has another form.
    RegistryError
        If no server answers, there is no such model or version, or this package did not publish it
        (`model_files.ForeignModelError`).
    OSError, ServerError
        If the server does not answer any more, or refuses a request, see `stages.connected`.
    """
    name, number = _named(model)
    if number and not number.isdigit():
        raise ParamsError(f"model: expected name or name/version, as in battle_winner/3, got {model!r}")
    rest = rest or stages.connect()
    registered = stages.read(rest, name)
    holders = [registered.holder(stage) for stage in (stages.PRODUCTION, stages.STAGING)]
    chosen = int(number) if number else next(filter(None, holders), max(registered.versions, default=0))
    version = registered.version(chosen)
    with tempfile.TemporaryDirectory() as folder:
        loaded = BattleWinner.load(fetch(rest, version, name, Path(folder)).folder)
    run = rest.call("GET", "runs/get", run_id=version.run_id)["run"]
    return LoadedVersion(name, version, loaded, metrics_of(run).get("calibration_error"))


def _named(model: str) -> tuple[str, str]:
    """Return the registered model and the number that a text names; a number alone is one of this project's model."""
    name, _, number = (f"{stages.NAME}/{model}" if model.isdecimal() else model).partition("/")
    return name, number


def _version(rest: MlflowRest, name: str, number: int) -> stages.Version:
    try:
        known = stages.read_with(rest, name, number).versions
    except stages.RegistryError:
        known = {}
    if number not in known:
        numbers = ", ".join(map(str, sorted(known, reverse=True))) or "none"
        raise ParamsError(f"model: {rest.uri} has no {name}/{number}; versions of {name}: {numbers}")
    return known[number]


def registered_versions(name: str) -> pd.DataFrame:
    """Return the registered versions of a model with their main metrics.

    Parameters
    ----------
    name : str
        The registered model; if it is empty, no server is asked.

    Returns
    -------
    DataFrame
        Index version, newest first; columns params (the file's name), dataset, protocol, features, log_loss,
        excess_percent, accuracy. Values that a version's run lacks are missing. A note if there are none, tracking is
        off, or no server answers.
    """
    columns = ["params", "dataset", "protocol", "features", "log_loss", "excess_percent", "accuracy"]
    uri = tracking_uri()
    if not name:
        return note("no versions: register_model is false")
    if not enabled() or not answers(uri):
        return note(f"no versions: {f'no MLflow server answers at {uri}' if enabled() else 'tracking is off'}")
    from mlflow import MlflowClient

    client, rows = MlflowClient(uri, uri), {}
    for version_ in client.search_model_versions(f"name = '{name}'", order_by=["version_number DESC"]):
        data = client.get_run(version_.run_id).data
        facts = [data.params.get(key) for key in ("version", "dataset_version", "protocol", "features")]
        figures = [data.metrics.get(key) for key in ("log_loss", "excess_percent", "test_accuracy")]
        rows[int(version_.version)] = facts + figures
    if not rows:
        return note(f"no versions: {name} has none")
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("version")

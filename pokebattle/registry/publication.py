"""Publish a trained model to MLflow's registry or to a local folder."""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pandas as pd

from nbtrack import is_local_id, run
from pokebattle.game.matchups import MATCHUP
from pokebattle.paths import project
from pokebattle.registry import model_files

if TYPE_CHECKING:
    from pokebattle.datasets import BattleSet
    from pokebattle.model import BattleWinner
    from pokebattle.params import Params

NEEDED = ["xgboost-cpu", "xgboost", "scikit-learn", "scipy", "pandas", "numpy", "numba"]  # needed to predict
SHOWN = {
    "excess_percent": ("excess", ".1f", " %"),
    "log_loss": ("log-loss", ".3f", ""),
    "calibration_error": ("calibration error", ".4f", ""),
    "test_accuracy": ("accuracy", ".3f", ""),
}
NOT_SERVED = (
    "battles",
    "node_modules",
    "tags.py",
    "tracking.py",
    "registry",
    "cli",
    "engine",
    "tuning",
)  # omitted folders


@dataclass(frozen=True)
class Published:
    """The result of publishing a model.

    Attributes
    ----------
    text : str
        A sentence for the user.
    link : str
        Address of the registered version or model, links to the trials, or path of the local folder.
    """

    text: str
    link: str

    def __repr__(self) -> str:
        return f"{self.text}\n{self.link}"


def publish(model: "BattleWinner", params: "Params", metrics: Mapping[str, float], battles: "BattleSet") -> Published:
    """Log the metrics to the run and register the model.

    The model is registered as ``params.model_name`` if ``params.register_model`` is true and the execution is tracked;
    if the server is away, it is registered later. Otherwise it is saved to ``build/models``, and the result contains
    the reason.

    Parameters
    ----------
    model : BattleWinner
        A fitted model.
    params : Params
        The parameters that it was trained with.
    metrics : mapping of str to float
        From `evaluation.run_metrics`.
    battles : BattleSet
        The set that it was trained and evaluated on.

    Returns
    -------
    Published
    """
    current = run()
    if current is None:
        return _save(model, params, "tracking is off" if params.register_model else "register_model is false")
    facts, model_id = metadata(model, battles), ""
    current.log_params(facts | {model_files.DIGEST: _digest(model)})
    current.describe("result", _in_words(metrics, battles.protocol))
    try:
        if not params.register_model:
            return _save(model, params, "register_model is false")
        known = [name for name in MATCHUP if name in battles.training]
        published, model_id = _register(model, params, battles.training[known].head(3), facts, current.uri)
        return published
    finally:  # after the model: MLflow asks for the history of each metric of the run to link it to the model
        current.log_metrics(metrics, model_id)


def _in_words(metrics: Mapping[str, float], protocol: str) -> str:
    """Return the main metrics with their intervals in one line of Markdown."""
    parts = []
    for key, (name, form, unit) in SHOWN.items():
        if key in metrics:
            ends = ", ".join(format(metrics[end], form) for end in (f"{key}_low", f"{key}_high") if end in metrics)
            parts.append(f"{name} **{metrics[key]:{form}}{unit}**" + (f" [{ends}]" if ends else ""))
    limit = f"; the best possible accuracy {metrics['bayes_accuracy']:.3f}" if "bayes_accuracy" in metrics else ""
    return f"Test part, protocol {protocol}: {', '.join(parts)}{limit}."


def keep(model: "BattleWinner", params: "Params") -> str:
    """Save a model without registering it.

    In a tracked execution, it becomes the artifact `best_model` of the run; otherwise it is saved to ``build/models``.

    Parameters
    ----------
    model : BattleWinner
        A fitted model.
    params : Params
        The parameters that it was trained with.

    Returns
    -------
    str
        A sentence that says where the model is.
    """
    current = run()
    if current is None:
        return f"The best model is saved in {_save(model, params, 'tracking is off').link}, as tracking is off."
    with tempfile.TemporaryDirectory() as folder:
        for file in sorted(model.save(folder).iterdir()):
            current.log_file(f"best_model/{file.name}", file.read_bytes())
    return "The best model is kept with the run, as best_model; train.ipynb registers models."


def metadata(model: "BattleWinner", battles: "BattleSet") -> dict[str, Any]:
    """Return facts about the model and its data, which become parameters of the run and metadata of the model.

    Parameters
    ----------
    model : BattleWinner
        A fitted model.
    battles : BattleSet
        The set that it was trained and evaluated on.

    Returns
    -------
    dict
        training_samples counts both orientations of every matchup.
    """
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
) -> tuple[Published, str]:
    """Log the model to the run and register it; return where it is, and the id of the logged model."""
    import mlflow

    if mlflow.active_run() is None:
        mlflow.set_tags({})  # starts the execution's run, to which the model belongs
    with contextlib.redirect_stderr(io.StringIO()):  # hides MLflow's log lines; errors are raised
        logged = log_model(
            model,
            [str(name) for name in example],
            input_example=example,
            registered_model_name=params.model_name,
            metadata={key: str(value) for key, value in facts.items()} | {"version": params.version},
        )
    page, number = f"{uri}/#/models/{params.model_name}", str(logged.registered_model_version)
    if is_local_id(number):  # the server is slow or away, and has not registered the version yet
        published = Published(f"{params.model_name} will be registered as soon as the server answers.", page)
    else:
        published = Published(f"{params.model_name} is registered as version {number}.", f"{page}/versions/{number}")
    return published, str(logged.model_id)


def log_model(model: "BattleWinner", columns: Sequence[str] = (), name: str = "model", **options: Any) -> Any:
    """Log a model to the active run: booster, feature configuration and code, nothing pickled.

    Parameters
    ----------
    model : BattleWinner
        A fitted model.
    columns : sequence of str
        The columns of the model's signature. By default those of `matchups.MATCHUP`, or only the species if the model
        was fitted on your own species.
    name : str, default "model"
        The model's name on the run.
    **options
        Further arguments of `mlflow.pyfunc.log_model`.

    Returns
    -------
    mlflow.models.model.ModelInfo
    """
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.utils import environment

    columns = columns or (MATCHUP if model.species_ is None else MATCHUP[:2])
    signature = ModelSignature(
        inputs=Schema([ColSpec("string", column) for column in columns]),
        outputs=Schema([ColSpec("double", "win_probability")]),
    )
    with tempfile.TemporaryDirectory() as staging:
        data, code = Path(staging) / "model", Path(staging) / "code" / "pokebattle"
        model.save(data)
        _copy_code(code)
        with contextlib.ExitStack() as stack:
            # MLflow compares `requirements` with what is installed, which is where they come from, and reads the file
            # lists of all packages for it, also when it loads the model to try the input example.
            for module in (environment, mlflow.pyfunc):
                stack.enter_context(patch.object(module, "warn_dependency_requirement_mismatches"))
            return mlflow.pyfunc.log_model(
                name=name,
                loader_module="pokebattle.model",
                data_path=str(data),
                code_paths=[str(code)],
                **{"signature": signature, "pip_requirements": requirements()} | options,
            )


def requirements() -> list[str]:
    """Return the packages that a loaded model needs, pinned to the installed versions."""
    pinned = []
    for name in NEEDED:
        try:
            pinned.append(f"{name}=={version(name)}")
        except PackageNotFoundError:  # only one of the two builds of XGBoost is installed
            continue
    return pinned


def _digest(model: "BattleWinner") -> str:
    with tempfile.TemporaryDirectory() as folder:
        return model_files.digest(model.save(folder))


def _copy_code(target: Path) -> None:
    """Copy the package's modules and game tables, without battles, caches and the folders in `NOT_SERVED`."""
    left_out = shutil.ignore_patterns("__pycache__", *NOT_SERVED)
    shutil.copytree(Path(__file__).parents[1], target, ignore=left_out)

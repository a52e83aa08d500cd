"""Check the files of a registered version before it is loaded.

A model of this package consists of a booster in XGBoost's own format and a JSON file. A version with anything else (a
pickle, another flavor, an additional file, a file changed after the registration) is never loaded; the error names the
file. The list of files is checked before any file is downloaded. The code stored with a model is meant for other
programs; it is never imported here.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from nbtrack.mlflow_rest import MlflowRest, ServerError, params_of
from pokebattle.registry import run_artifacts
from pokebattle.registry.stages import RegistryError, Version

LOADER = "pokebattle.model"
DATA = "data/model"
MODEL = ("booster.ubj", "features.json")  # what `BattleWinner.save` writes
DESCRIBED = {
    "MLmodel",
    "conda.yaml",
    "python_env.yaml",
    "requirements.txt",
    "input_example.json",
    "serving_input_example.json",
}
CODE = re.compile(r"code/pokebattle/([\w.-]+/)*[\w.-]+\.(py|json|csv)")
PICKLED = re.compile(r"\.(pkl|pickle|cloudpickle|dill|joblib|sav|pt|pth|npy|npz)$", re.IGNORECASE)
FLAVOR = {"loader_module", "data", "code", "env", "python_version", "streamable"}
DIGEST = "model_digest"  # parameter of the run that logged the model; MLflow's parameters cannot be changed


class ForeignModelError(RegistryError):
    """A registered version that this package did not publish, or that was changed after the registration."""


@dataclass(frozen=True)
class ModelFiles:
    """The checked files of a version.

    Attributes
    ----------
    folder : Path
        Contains the files `MODEL`.
    metadata : dict
        The facts from `publication.metadata`, as text.
    """

    folder: Path
    metadata: Mapping[str, str] = field(repr=False)


def digest(folder: Path) -> str:
    """Return 64 hexadecimal digits that identify a model by the content of its files.

    Parameters
    ----------
    folder : Path
        Contains the files `MODEL`.
    """
    parts = [f"{name}:{sha256((folder / name).read_bytes()).hexdigest()}" for name in MODEL]
    return sha256("/".join(parts).encode()).hexdigest()


def check(rest: MlflowRest, version: Version, name: str) -> None:
    """Run the checks of `fetch` without keeping the files.

    Parameters
    ----------
    rest, version, name
        As in `fetch`.

    Raises
    ------
    ForeignModelError, OSError, ServerError
        As in `fetch`.
    """
    with tempfile.TemporaryDirectory() as folder:
        fetch(rest, version, name, Path(folder))


def fetch(rest: MlflowRest, version: Version, name: str, folder: Path) -> ModelFiles:
    """Check and download the files from which a version's model is loaded.

    Parameters
    ----------
    rest : MlflowRest
    version : Version
    name : str
        The registered model.
    folder : Path
        Target folder.

    Raises
    ------
    ForeignModelError
        If the version contains a file or flavor that models of this package do not have, or its digest is not the
        recorded one.
    OSError, ServerError
        If the server does not answer, or refuses a request.
    """
    title = f"{name}/{version.number}"
    expected = _recorded_digest(rest, version, title)
    store = _store(rest, version, title)
    paths = sorted(_paths(store))
    for path in paths:
        if PICKLED.search(path):
            raise _foreign(title, f"it contains a pickle, {path}")
        if path not in DESCRIBED and path not in {f"{DATA}/{one}" for one in MODEL} and not CODE.fullmatch(path):
            raise _foreign(title, f"it contains {path}, which models of this package do not have")
    needed = ["MLmodel", *(f"{DATA}/{one}" for one in MODEL)]
    if missing := [path for path in needed if path not in paths]:
        raise _foreign(title, f"{missing[0]} is missing")
    got = [run_artifacts.download(store, path, folder) for path in needed]
    metadata = _described(got[0], title)
    if (actual := digest(folder / DATA)) != expected:
        raise _foreign(
            title,
            f"its files are not the ones that were registered: digest expected {expected[:12]}…, got {actual[:12]}…",
        )
    return ModelFiles(folder / DATA, metadata)


def _foreign(title: str, why: str) -> ForeignModelError:
    return ForeignModelError(f"model: {title} is not loaded: {why}")


def _recorded_digest(rest: MlflowRest, version: Version, title: str) -> str:
    """Return the digest of the model's files that is recorded on the version's run."""
    try:
        run = rest.call("GET", "runs/get", run_id=version.run_id)["run"]
    except ServerError as error:
        if error.denied or not error.permanent:
            raise
        raise _foreign(title, "no run records the digest of its files") from None
    recorded = params_of(run).get(DIGEST)
    if recorded is None:
        raise _foreign(title, f"its run names no {DIGEST}: train.ipynb did not register it, or an older release did")
    return recorded


def _store(rest: MlflowRest, version: Version, title: str) -> Any:
    """Return the artifact repository of a version's logged model."""
    match = re.fullmatch(r"models:/(m-[0-9a-f]+)", version.source)
    if not match:
        raise _foreign(title, f"its source is {version.source or 'none'}, not a model that a run has logged")
    try:
        model = rest.call("GET", f"logged-models/{match[1]}")["model"]
    except ServerError as error:
        if error.denied or not error.permanent:
            raise
        raise _foreign(title, f"its source {version.source} is gone") from None
    if model["info"].get("source_run_id") != version.run_id:
        raise _foreign(title, f"its source was logged by another run than {version.run_id or 'none'}")
    return run_artifacts.store_at(rest, model["info"]["artifact_uri"])


def _paths(store: Any, folder: str = "") -> Iterator[str]:
    for entry in store.list_artifacts(folder or None):
        if entry.is_dir:
            yield from _paths(store, entry.path)
        else:
            yield entry.path


def _described(file: Path, title: str) -> dict[str, str]:
    """Check the `MLmodel` file and return its metadata: one flavor, loaded by our module from our files."""
    try:
        described = yaml.safe_load(file.read_text("utf-8"))
        flavors, metadata = described["flavors"], described.get("metadata") or {}
        flavor = flavors.get("python_function", {})
        others = sorted(set(flavors) - {"python_function"}) + sorted(set(flavor) - FLAVOR)
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, AttributeError) as error:
        raise _foreign(title, f"MLmodel cannot be read ({type(error).__name__})") from None
    if others:
        raise _foreign(title, f"MLmodel names {', '.join(map(str, others))}, which models of this package do not have")
    for key, expected in (("loader_module", LOADER), ("data", DATA)):
        if flavor.get(key) != expected:
            raise _foreign(title, f"MLmodel, {key}: expected {expected}, got {flavor.get(key)!r}")
    return {str(key): str(value) for key, value in metadata.items()}

"""The files of a registered version: looked at before they are fetched, and fetched before they are read.

A model of ours is a booster in XGBoost's own format and JSON. Whatever else the registry holds under its name, a
pickle, another flavor, a file too many, one that was changed after it was registered, is refused by name and never
loaded. The code that is stored beside a model is for other programs: nothing here imports it.
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

from pokebattle.params import ParamsError
from pokebattle.registry import artifacts
from pokebattle.registry.stages import Version
from pokebattle.tracking.shipping.rest import MlflowRest, ServerError, params_of

LOADER = "pokebattle.model"
DATA = "data/model"
MODEL = ("booster.ubj", "features.json")  # what `BattleWinner.save` writes
DESCRIBED = {"MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", "input_example.json",
             "serving_input_example.json"}  # fmt: skip
CODE = re.compile(r"code/pokebattle/([\w.-]+/)*[\w.-]+\.(py|json|csv)")
PICKLED = re.compile(r"\.(pkl|pickle|cloudpickle|dill|joblib|sav|pt|pth|npy|npz)$", re.IGNORECASE)
FLAVOR = {"loader_module", "data", "code", "env", "python_version", "streamable"}
DIGEST = "model_digest"  # a parameter of the run that logged the model: MLflow never changes one


class ForeignModelError(ParamsError):
    """A registered version that is none of ours, or no longer the one that was registered."""


@dataclass(frozen=True)
class ModelFiles:
    """The checked files of a version.

    Attributes
    ----------
    folder : Path
        Holds the files of `MODEL`.
    metadata : dict
        What `publication.metadata` said of model and data, as text.
    """

    folder: Path
    metadata: Mapping[str, str] = field(repr=False)


def digest(folder: Path) -> str:
    """Return 64 hexadecimal digits that identify a model by its files."""
    parts = [f"{name}:{sha256((folder / name).read_bytes()).hexdigest()}" for name in MODEL]
    return sha256("/".join(parts).encode()).hexdigest()


def check(rest: MlflowRest, version: Version, name: str) -> None:
    """Refuse a version that `fetch` would refuse; nothing is kept."""
    with tempfile.TemporaryDirectory() as folder:
        fetch(rest, version, name, Path(folder))


def fetch(rest: MlflowRest, version: Version, name: str, folder: Path) -> ModelFiles:
    """Download the files of a version that its model is read from.

    Parameters
    ----------
    folder : Path
        Where they go.

    Raises
    ------
    ForeignModelError
        Naming the file, flavor or digest that a version of ours does not have.
    """
    title = f"{name}/{version.number}"
    expected = _recorded_digest(rest, version, title)
    store = _store(rest, version, title)
    paths = sorted(_paths(store))
    for path in paths:
        if PICKLED.search(path):
            raise _foreign(title, f"it holds a pickle, {path}")
        if path not in DESCRIBED and path not in {f"{DATA}/{one}" for one in MODEL} and not CODE.fullmatch(path):
            raise _foreign(title, f"it holds {path}, which no model of ours has")
    needed = ["MLmodel", *(f"{DATA}/{one}" for one in MODEL)]
    if missing := [path for path in needed if path not in paths]:
        raise _foreign(title, f"{missing[0]} is missing")
    got = [artifacts.download(store, path, folder) for path in needed]
    metadata = _described(got[0], title)
    if (found := digest(folder / DATA)) != expected:
        raise _foreign(title, f"its files are not the ones that were registered: digest expected {expected[:12]}…, "
                              f"got {found[:12]}…")  # fmt: skip
    return ModelFiles(folder / DATA, metadata)


def _foreign(title: str, why: str) -> ForeignModelError:
    return ForeignModelError(f"model: {title} is not loaded: {why}")


def _recorded_digest(rest: MlflowRest, version: Version, title: str) -> str:
    """Return what the version's run says of the model's files."""
    try:
        run = rest.call("GET", "runs/get", run_id=version.run_id)["run"]
    except ServerError as error:
        if error.denied or not error.permanent:
            raise
        raise _foreign(title, "no run vouches for its files") from None
    told = params_of(run).get(DIGEST)
    if told is None:
        raise _foreign(title, f"its run names no {DIGEST}: train.ipynb did not register it, or before this was noted")
    return told


def _store(rest: MlflowRest, version: Version, title: str) -> Any:
    """Return MLflow's view on the folder of a version's files."""
    found = re.fullmatch(r"models:/(m-[0-9a-f]+)", version.source)
    if not found:
        raise _foreign(title, f"its source is {version.source or 'none'}, and no model that a run has logged")
    try:
        model = rest.call("GET", f"logged-models/{found[1]}")["model"]
    except ServerError as error:
        if error.denied or not error.permanent:
            raise
        raise _foreign(title, f"its source {version.source} is gone") from None
    if model["info"].get("source_run_id") != version.run_id:
        raise _foreign(title, f"its source was logged by another run than {version.run_id or 'none'}")
    return artifacts.store_at(rest, model["info"]["artifact_uri"])


def _paths(store: Any, folder: str = "") -> Iterator[str]:
    for entry in store.list_artifacts(folder or None):
        if entry.is_dir:
            yield from _paths(store, entry.path)
        else:
            yield entry.path


def _described(file: Path, title: str) -> dict[str, str]:
    """Check what MLmodel says: one flavor, loaded by our module from our files."""
    try:
        told = yaml.safe_load(file.read_text("utf-8"))
        flavors, metadata = told["flavors"], told.get("metadata") or {}
        flavor = flavors.get("python_function", {})
        others = sorted(set(flavors) - {"python_function"}) + sorted(set(flavor) - FLAVOR)
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, AttributeError) as error:
        raise _foreign(title, f"MLmodel cannot be read ({type(error).__name__})") from None
    if others:
        raise _foreign(title, f"MLmodel names {', '.join(map(str, others))}, which no model of ours has")
    for key, expected in (("loader_module", LOADER), ("data", DATA)):
        if flavor.get(key) != expected:
            raise _foreign(title, f"MLmodel, {key}: expected {expected}, got {flavor.get(key)!r}")
    return {str(key): str(value) for key, value in metadata.items()}

"""Look up and adopt the settings that a search has found. Optuna is not needed here."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from nbtrack import run, trials
from nbtrack.executions import run_address
from nbtrack.mlflow_rest import MlflowRest, ServerError, params_of, tags_of
from nbtrack.settings import tracking_uri
from nbtrack.tags import BEST
from pokebattle import params
from pokebattle.errors import UnavailableError
from pokebattle.params import ParamsError
from pokebattle.tags import TRAINED_BY, TUNED_FROM

LATEST = "latest"


class Tuned(NamedTuple):
    """The settings that a run of tune.ipynb has found; all fields are empty if there is no such run.

    Attributes
    ----------
    run_id, link : str
        Id and address of the run.
    values : mapping
        The settings by name.
    """

    run_id: str = ""
    link: str = ""
    values: Mapping[str, Any] = {}


def find(tuned_from: str, version: str) -> Tuned:
    """Look up the settings that a run of tune.ipynb has found.

    Parameters
    ----------
    tuned_from : str
        The run's id, "latest" for the latest run that found settings for the version, or "" for none.
    version : str
        The version that was tuned.

    Returns
    -------
    Tuned

    Raises
    ------
    ParamsError
        If there is no such run, it has found no settings, or it has tuned another version.
    UnavailableError
        If no server answers, or it refuses this account.
    """
    if not tuned_from:
        return Tuned()
    uri = tracking_uri()
    rest = MlflowRest(uri, trials.TIMEOUT)
    try:
        if tuned_from == LATEST:
            wanted = f"tags.`{BEST}` != '' AND params.version = '{version}'"
            runs = list(rest.search_runs(wanted, "attributes.start_time DESC"))
        else:
            runs = [rest.call("GET", "runs/get", run_id=tuned_from)["run"]]
    except (OSError, ServerError) as error:
        if isinstance(error, OSError) or error.denied or not error.permanent:
            raise UnavailableError(f"tuned_from: {uri} does not answer ({error})") from None
        raise ParamsError(
            f"tuned_from: expected a run of tune.ipynb that {uri} knows, got {tuned_from!r} ({error})"
        ) from None
    if not runs:
        raise ParamsError(
            f"tuned_from: {uri} has no run of tune.ipynb that found values for {version}; "
            f"papermill notebooks/tune.ipynb out.ipynb -p version {version} creates one"
        )
    info, best = runs[0]["info"], tags_of(runs[0]).get(BEST)
    if not best:
        raise ParamsError(f"tuned_from: expected a run of tune.ipynb, got {tuned_from!r}, which found no values")
    tuned = params_of(runs[0]).get("version")
    if tuned != version:
        raise ParamsError(f"tuned_from: expected a run that tuned {version}, got {tuned_from!r}, which tuned {tuned}")
    link = run_address({"uri": uri, "run_id": info["run_id"], "experiment_id": info["experiment_id"]})
    return Tuned(info["run_id"], link, json.loads(best))


def find_and_link(tuned_from: str, version: str) -> Tuned:
    """Look up settings to train with, and record the connection on both runs, the search's and the training's.

    Parameters
    ----------
    tuned_from, version : str
        As in `find`.

    Returns
    -------
    Tuned

    Raises
    ------
    ParamsError, UnavailableError
        As in `find`.
    """
    tuned, current = find(tuned_from, version), run()
    if tuned.run_id and current:
        current.describe("settings", f"Settings from [the search of {version}]({tuned.link})")
        current.set_tags({TUNED_FROM: tuned.run_id})
        current.set_tags({TRAINED_BY: current.local_id}, tuned.run_id)
    return tuned


def new_file(new: str) -> Path:
    """Return the file of a version that does not exist yet.

    Parameters
    ----------
    new : str
        Name of the new version.

    Raises
    ------
    ParamsError
        If the name is invalid or already taken.
    """
    file = params.folder() / f"{new}.yaml"
    if not re.fullmatch(r"[A-Za-z0-9_]+", new):
        raise ParamsError(f"version: expected a name of letters, digits and _, got {new!r}")
    if file.exists():
        raise ParamsError(f"version: expected an unused name, got {new!r}; params/{new}.yaml exists")
    return file


def write_version(new: str, tuned: Tuned, version: str) -> Path:
    """Write the file of a new version: a copy of another version, including comments, with the settings found.

    Parameters
    ----------
    new : str
        Name of the new version.
    tuned : Tuned
    version : str
        The version to copy.

    Returns
    -------
    Path
        The new file.

    Raises
    ------
    ParamsError
        If the name is invalid or already taken, or the new file is not valid (it is then deleted).
    """
    file = new_file(new)
    text = (params.folder() / f"{version}.yaml").read_text(encoding="utf-8")
    description = f"{version} with the settings that run {tuned.run_id} of tune.ipynb found"
    for name, value in {"version": new, "description": description, **tuned.values}.items():
        text = re.sub(rf"(?m)^({name}: +)(.*?)( +#.*)?$", functools.partial(_line, value=value), text, count=1)
    file.write_text(text, encoding="utf-8")
    try:
        params.validate(file.name, f'version: str = "{new}"', {})
    except ParamsError:
        file.unlink()
        raise
    return file


def _line(line: re.Match[str], value: Any) -> str:
    """Return a line of a version's file with a new value, and its comment in the same column."""
    comment = (line[3] or "").lstrip()
    column = len(line[0]) - len(comment)
    written = yaml.safe_dump(value, width=1000).partition("\n")[0]
    return f"{line[1] + written:<{column - 2}}  {comment}".rstrip()

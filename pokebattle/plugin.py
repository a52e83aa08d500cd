"""What this project adds to `nbtrack`: checked parameters, notes about battles, and a flavour of logged models.

The functions are those of `nbtrack.plugins.Plugin`; the entry point is in pyproject.toml.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from nbtrack import run
from nbtrack.settings import tracking_uri
from pokebattle import hooks
from pokebattle.paths import STORAGE, studies_file

if TYPE_CHECKING:
    from pokebattle.datasets import BattleSet
    from pokebattle.params import Params


def start_kernel() -> None:
    """Let the run record parameters and battles when cells load them."""
    hooks.subscribe(hooks.PARAMS_LOADED, _record_params)
    hooks.subscribe(hooks.BATTLES_LOADED, _record_battles)
    hooks.subscribe(hooks.PART_OPENED, _record_part)


def _record_params(params: Params) -> None:
    if current := run():
        current.log_params(params.model_dump(), automatic=True)
        from pokebattle.params.files import folder

        versions = folder().resolve()
        current.use_files(str(versions / "*.yaml"), [versions / f"{params.version}.yaml"])


def _record_battles(battles: BattleSet) -> None:
    if current := run():
        current.log_dataset(
            battles.name,
            battles.digest,
            part="train",
            rows=len(battles.training),
            source=_source(battles),
            manifest=battles.manifest,
        )


def _record_part(battles: BattleSet, part: str, rows: int) -> None:
    if current := run():
        current.log_dataset(battles.name, battles.digest, part=part, rows=rows, source=_source(battles))


def _source(battles: BattleSet) -> str:
    return f"pokebattle/data/battles/{battles.name}"


def check_parameters(notebook: str, metadata: Mapping[str, Any], source: str, given: Mapping[str, Any]) -> None:
    """Check the parameters of a notebook whose metadata contain ``"schema": "params"``.

    Parameters
    ----------
    notebook, metadata, source, given
        As in `nbtrack.plugins.Plugin`.

    Raises
    ------
    ParamsError
        If a parameter is invalid.
    """
    if metadata.get("schema") == "params":
        from pokebattle.params import validate

        validate(notebook, source, given)


def parameters_for_run_name(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters for a run's name, with ``unknown`` for a version that does not exist.

    Parameters
    ----------
    given : mapping
    """
    from pokebattle.params import versions

    unknown = "version" in given and given["version"] not in versions()
    return {**given, "version": "unknown"} if unknown else given


def model_logger(model: Any) -> Callable[..., Any] | None:
    """Return the function that logs a `BattleWinner`; None for another model.

    Parameters
    ----------
    model : object
    """
    from pokebattle.model import BattleWinner
    from pokebattle.registry import log_model

    if not isinstance(model, BattleWinner):
        return None
    return lambda model, name, **options: log_model(model, name=name, **options)


def requirements() -> list[str]:
    """Return the packages that a loaded model needs, pinned to the installed versions."""
    from pokebattle.registry import requirements

    return requirements()


def after_sync() -> list[str]:
    """Compare the studies that this machine uses with their runs, if there are any; return what was repaired."""
    if not os.environ.get(STORAGE) and not studies_file().is_file():
        return []
    if find_spec("optuna") is None:
        return ["trials are not checked: optuna is not installed"]
    from pokebattle.tuning.trial_runs import repair_all

    missing, doubled, orphans = repair_all(tracking_uri())
    left = f", {orphans} wait for the run of their notebook" if orphans else ""
    return [f"{missing} trials delivered, {doubled} duplicates removed{left}"]

"""Move versions between stages and keep stage, alias and tag equal. mlflow is not needed.

The stage is authoritative: the server moves a version into a stage and the previous version out of it in one step.
Alias and tag are derived from it. A promotion writes its plan to a tag of the version before it begins, so that the
next promotion can complete one that was killed in between.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from nbtrack.mlflow_rest import MlflowRest
from pokebattle.registry import description
from pokebattle.registry.stages import ALIASES, ARCHIVED, Model, read
from pokebattle.tags import EVENT, PENDING, STAGE


class Writer:
    """Change the versions of one model, and check before every change that the promotion lock is still held.

    Parameters
    ----------
    rest : MlflowRest
    name : str
        The registered model.
    allowed : callable
        Called before every change; raises if the lock has expired, see `promotion_lock.hold_lock`.
    """

    def __init__(self, rest: MlflowRest, name: str, allowed: Callable[[], None]) -> None:
        self.rest, self.name, self.allowed = rest, name, allowed

    def tag(self, number: int, key: str, value: str) -> None:
        """Set a tag of a version.

        Parameters
        ----------
        number : int
            The version.
        key, value : str
        """
        self._call("POST", "model-versions/set-tag", version=str(number), key=key, value=value)

    def untag(self, number: int, key: str) -> None:
        """Remove a tag of a version.

        Parameters
        ----------
        number : int
            The version.
        key : str
        """
        self._call("DELETE", "model-versions/delete-tag", version=str(number), key=key)

    def transition(self, number: int, stage: str) -> None:
        """Move a version into a stage. For Staging and Production, archive the others there in the same request.

        Parameters
        ----------
        number : int
            The version.
        stage : str
        """
        self._call(
            "POST",
            "model-versions/transition-stage",
            version=str(number),
            stage=stage,
            archive_existing_versions=stage in ALIASES,
        )

    def alias(self, stage: str, number: int | None) -> None:
        """Set the alias of a stage, or delete it.

        Parameters
        ----------
        stage : {"Staging", "Production"}
        number : int or None
            The version; None deletes the alias.
        """
        if number is None:
            self._call("DELETE", "registered-models/alias", alias=ALIASES[stage])
        else:
            self._call("POST", "registered-models/alias", alias=ALIASES[stage], version=str(number))

    def describe(self, number: int, text: str) -> None:
        """Set the description of a version.

        Parameters
        ----------
        number : int
            The version.
        text : str
            Markdown.
        """
        self._call("PATCH", "model-versions/update", version=str(number), description=text)

    def describe_model(self, text: str) -> None:
        """Set the description of the registered model.

        Parameters
        ----------
        text : str
            Markdown.
        """
        self._call("PATCH", "registered-models/update", description=text)

    def _call(self, method: str, path: str, **fields: Any) -> None:
        self.allowed()
        self.rest.call(method, path, name=self.name, **fields)


def repair(writer: Writer) -> list[str]:
    """Complete or drop interrupted moves, and set aliases and tags to match the stages.

    If the process is killed at any point, calling the function again finishes the work.

    Parameters
    ----------
    writer : Writer

    Returns
    -------
    list of str
        The inconsistencies that were found, see `stages.Model.disagreements`.

    Raises
    ------
    BusyError, OSError, ServerError
        If the lock expires, or the server does not answer or refuses a change.
    """
    model = read(writer.rest, writer.name)
    disagreements = model.disagreements()
    for stage in ALIASES:
        holders = model.within(stage)
        if len(holders) > 1:  # a version was moved by hand
            writer.transition(holders[0].number, stage)
    model = read(writer.rest, writer.name) if disagreements else model
    for stage, alias in ALIASES.items():
        holder = model.holder(stage)
        aliased = [version.number for version in model.versions.values() if alias in version.aliases]
        if aliased != ([] if holder is None else [holder]):
            writer.alias(stage, holder)
    for number, version in model.versions.items():
        if version.tag != version.stage:
            writer.tag(number, STAGE, version.stage)
    for number, version in model.versions.items():
        if PENDING in version.tags:
            _settle(writer, model, number, json.loads(version.tags[PENDING]))
    return disagreements


def _settle(writer: Writer, model: Model, number: int, move: dict[str, Any]) -> None:
    """Record a completed move on all versions that it moved. Drop a move that was not carried out."""
    if model.versions[number].stage == move["to"]:
        back = move["kind"] == "rollback"
        instead = f"rolled back to version {number}: {move['why']}" if back else f"version {number} took its place"
        moved = {number: move} | {
            other: {
                "version": other,
                "from": move["to"],
                "to": ARCHIVED,
                "by": move["by"],
                "when": move["when"],
                "why": instead,
                "kind": move["kind"],
            }
            for other in move["archived"]
            if other in model.versions
        }
        for moved_number, event in moved.items():
            writer.tag(moved_number, EVENT + event["when"], json.dumps(event, ensure_ascii=False))
            for key in ("by", "when", "why"):
                writer.tag(moved_number, f"{STAGE}.{key}", event[key])
        model = read(writer.rest, writer.name)
        for moved_number in moved:
            version = model.versions[moved_number]
            writer.describe(moved_number, description.of_version(version.description, version.events))
        holders = {stage: model.versions[holder] for stage in ALIASES if (holder := model.holder(stage)) is not None}
        writer.describe_model(description.of_model(model, holders))
    writer.untag(number, PENDING)

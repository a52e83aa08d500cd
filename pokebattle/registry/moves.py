"""How versions are moved such that stage, alias and tag stay the same. No mlflow needed.

The stage is what counts: the server moves a version into one and the former one out of it in one step. Alias and tag
follow from it. What a promotion is about to do stands on its version before it does it, so that whoever comes next can
complete what was killed in the middle.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pokebattle.registry import page
from pokebattle.registry.stages import ALIASES, ARCHIVED, EVENT, PENDING, TAG, Model, read
from pokebattle.tracking.shipping.rest import MlflowRest


class Writer:
    """Changes versions of one model; before every change it asks whether it still may.

    Parameters
    ----------
    rest : MlflowRest
    name : str
        The registered model.
    allowed : callable
        Raises when the claim to change stages has run out.
    """

    def __init__(self, rest: MlflowRest, name: str, allowed: Callable[[], None]) -> None:
        self.rest, self.name, self.allowed = rest, name, allowed

    def tag(self, number: int, key: str, value: str) -> None:
        """Set a tag of a version."""
        self._call("POST", "model-versions/set-tag", version=str(number), key=key, value=value)

    def untag(self, number: int, key: str) -> None:
        """Remove a tag of a version."""
        self._call("DELETE", "model-versions/delete-tag", version=str(number), key=key)

    def transition(self, number: int, stage: str) -> None:
        """Move a version into a stage, and every other one out of it into the archive, in one step of the server's."""
        self._call("POST", "model-versions/transition-stage", version=str(number), stage=stage,
                   archive_existing_versions=stage in ALIASES)  # fmt: skip

    def alias(self, stage: str, number: int | None) -> None:
        """Let the alias of a stage name a version, or none."""
        if number is None:
            self._call("DELETE", "registered-models/alias", alias=ALIASES[stage])
        else:
            self._call("POST", "registered-models/alias", alias=ALIASES[stage], version=str(number))

    def describe(self, number: int, text: str) -> None:
        """Write a version's description."""
        self._call("PATCH", "model-versions/update", version=str(number), description=text)

    def describe_model(self, text: str) -> None:
        """Write the registered model's description."""
        self._call("PATCH", "registered-models/update", description=text)

    def _call(self, method: str, path: str, **fields: Any) -> None:
        self.allowed()
        self.rest.call(method, path, name=self.name, **fields)


def mend(writer: Writer) -> list[str]:
    """Complete or drop what was begun, and let aliases and tags say what the stages are; return what was not so.

    It can be killed and done again at any point.
    """
    model = read(writer.rest, writer.name)
    said = model.disagreements()
    for stage in ALIASES:
        holders = model.within(stage)
        if len(holders) > 1:  # somebody moved one by hand
            writer.transition(holders[0].number, stage)
    model = read(writer.rest, writer.name) if said else model
    for stage, alias in ALIASES.items():
        holder = model.holder(stage)
        aliased = [version.number for version in model.versions.values() if alias in version.aliases]
        if aliased != ([] if holder is None else [holder]):
            writer.alias(stage, holder)
    for number, version in model.versions.items():
        if version.tag != version.stage:
            writer.tag(number, TAG, version.stage)
    for number, version in model.versions.items():
        if PENDING in version.tags:
            _settle(writer, model, number, json.loads(version.tags[PENDING]))
    return said


def _settle(writer: Writer, model: Model, number: int, move: dict[str, Any]) -> None:
    """Write down a move that has happened on all versions that it moved; forget one that has not."""
    if model.versions[number].stage == move["to"]:
        back = move["kind"] == "rollback"
        instead = f"rolled back to version {number}: {move['why']}" if back else f"version {number} took its place"
        moved = {number: move} | {
            other: {"version": other, "from": move["to"], "to": ARCHIVED, "by": move["by"], "when": move["when"],
                    "why": instead, "kind": move["kind"]}
            for other in move["archived"] if other in model.versions
        }  # fmt: skip
        for one, event in moved.items():
            writer.tag(one, EVENT + event["when"], json.dumps(event, ensure_ascii=False))
            for key in ("by", "when", "why"):
                writer.tag(one, f"{TAG}.{key}", event[key])
        model = read(writer.rest, writer.name)
        for one in moved:
            version = model.versions[one]
            writer.describe(one, page.of_version(version.description, version.events))
        holders = {stage: model.versions[holder] for stage in ALIASES if (holder := model.holder(stage)) is not None}
        writer.describe_model(page.of_model(model, holders))
    writer.untag(number, PENDING)

"""What the registry says of a model: its versions' stages, aliases and tags, and where these disagree.

No mlflow needed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pokebattle.tracking.server import answers
from pokebattle.tracking.settings import tracking_uri
from pokebattle.tracking.shipping import spool
from pokebattle.tracking.shipping.rest import MlflowRest, ServerError

NONE, STAGING, PRODUCTION, ARCHIVED = "None", "Staging", "Production", "Archived"
ALIASES = {STAGING: "staging", PRODUCTION: "production"}
TAG = "stage"
PENDING = "pokebattle.pending"  # a tag: the move that is under way
EVENT = "history."  # tags, one a move, whose names end with its moment
TIMEOUT = 10.0  # seconds that one request may take
ARRIVAL = 30.0  # seconds that a version may take which an execution registers that has just ended


class RegistryError(Exception):
    """What the registry or its server does not allow, in one line."""


@dataclass(frozen=True)
class Version:
    """One registered version, as the server has it.

    Attributes
    ----------
    stage, tag : str
        The stage, and what the tag says of it; a missing tag says None.
    aliases : tuple of str
        Those of `ALIASES` and any others.
    updated : int
        Milliseconds since 1970.
    """

    number: int
    stage: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str] = field(repr=False)
    run_id: str
    source: str
    description: str = field(repr=False)
    updated: int

    @property
    def tag(self) -> str:
        """What the tag says of the stage."""
        return self.tags.get(TAG, NONE)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The moves of this version, oldest first."""
        return [json.loads(self.tags[key]) for key in sorted(self.tags) if key.startswith(EVENT)]


@dataclass(frozen=True)
class Model:
    """A registered model with all its versions, by number."""

    name: str
    description: str = field(repr=False)
    versions: Mapping[int, Version]

    def version(self, number: int) -> Version:
        """Return a version, or say which there are."""
        if number not in self.versions:
            known = ", ".join(map(str, sorted(self.versions))) or "none"
            raise RegistryError(f"{self.name} has no version {number}; there is {known}")
        return self.versions[number]

    def within(self, stage: str) -> list[Version]:
        """Return the versions in a stage, that with its alias first, then the one that was moved last."""
        found = [version for version in self.versions.values() if version.stage == stage]
        return sorted(found, key=lambda v: (ALIASES.get(stage) in v.aliases, v.updated), reverse=True)

    def holder(self, stage: str) -> int | None:
        """Return the number of the version in a stage; None where there is none."""
        return next((version.number for version in self.within(stage)), None)

    def events(self) -> list[dict[str, Any]]:
        """Return the moves of all versions, oldest first."""
        found = [event for version in self.versions.values() for event in version.events]
        return sorted(found, key=lambda event: (event["when"], event["to"] != ARCHIVED))

    def disagreements(self) -> list[str]:
        """Say where stage, alias and tag are not the same, and which moves were not completed."""
        said = []
        for number, version in sorted(self.versions.items()):
            if version.tag != version.stage:
                said.append(f"version {number} is in {version.stage}, its tag {TAG} says {version.tag}")
            for stage, alias in ALIASES.items():
                if (alias in version.aliases) != (version.stage == stage):
                    has = "has" if alias in version.aliases else "lacks"
                    said.append(f"version {number} is in {version.stage} and {has} the alias {alias}")
            if PENDING in version.tags:
                move = json.loads(version.tags[PENDING])
                said.append(f"version {number}: the move to {move['to']} that {move['by']} began at {move['when']} was "
                            "not completed")  # fmt: skip
        for stage in ALIASES:
            if len(holders := self.within(stage)) > 1:
                numbers = " and ".join(str(version.number) for version in holders)
                said.append(f"{stage} holds the versions {numbers}")
        return said


def connect(uri: str = "") -> MlflowRest:
    """Return a connection to the server of this checkout, or to another one.

    Raises
    ------
    RegistryError
        If none answers there.
    """
    uri = uri or tracking_uri()
    if not answers(uri):
        raise RegistryError(f"no MLflow server answers at {uri}: `make server` starts one, MLFLOW_TRACKING_URI names "
                            "another")  # fmt: skip
    return MlflowRest(uri, TIMEOUT)


def read(rest: MlflowRest, name: str) -> Model:
    """Return what the registry knows of a model.

    Raises
    ------
    RegistryError
        If there is no such model.
    """
    try:
        found = rest.call("GET", "registered-models/get", name=name)["registered_model"]
    except ServerError as error:
        if error.code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise RegistryError(f"{rest.uri} has no registered model {name}: train.ipynb registers one of every "
                            "version whose register_model is true, and of others with -p register_model True") from None
    aliases: dict[int, list[str]] = {}
    for one in found.get("aliases", []):
        aliases.setdefault(int(one["version"]), []).append(one["alias"])
    asked = {"filter": f"name='{name}'", "max_results": 1000}
    versions: dict[int, Version] = {}
    while True:
        answer = rest.call("GET", "model-versions/search", **asked)
        for one in answer.get("model_versions", []):
            number = int(one["version"])
            versions[number] = Version(
                number, one.get("current_stage", NONE), tuple(aliases.get(number, ())),
                {tag["key"]: tag.get("value", "") for tag in one.get("tags", [])}, one.get("run_id", ""),
                one.get("source", ""), one.get("description", ""), int(one.get("last_updated_timestamp", 0)),
            )  # fmt: skip
        if not answer.get("next_page_token"):
            return Model(name, found.get("description", ""), dict(sorted(versions.items())))
        asked["page_token"] = answer["next_page_token"]


def read_with(rest: MlflowRest, name: str, number: int) -> Model:
    """Return what `read` does; a version that is not there is waited for while executions from here are delivered.

    A notebook that has just ended may still be registering it.
    """
    deadline, coming = time.monotonic() + ARRIVAL, True
    while True:
        try:
            model = read(rest, name)
        except RegistryError:
            if not coming:
                raise
        else:
            if number in model.versions or not coming:
                return model
        coming = spool.on_their_way(rest.uri) and time.monotonic() < deadline  # if not, it may have come by now
        if coming:
            time.sleep(0.2)


def moment() -> str:
    """Return the present, UTC, such that later ones sort behind it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

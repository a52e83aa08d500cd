"""Read a registered model: the stages, aliases and tags of its versions, and inconsistencies between them.

mlflow is not needed.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.error import URLError

from nbtrack import is_delivering
from nbtrack.mlflow_rest import MlflowRest, ServerError
from nbtrack.provenance import user_name
from nbtrack.server import answers
from nbtrack.settings import tracking_uri
from pokebattle.errors import UserError
from pokebattle.params import versions
from pokebattle.tags import EVENT, PENDING, STAGE

NAME = "battle_winner"  # the registered model of this project
NONE, STAGING, PRODUCTION, ARCHIVED = "None", "Staging", "Production", "Archived"
ALIASES = {STAGING: "staging", PRODUCTION: "production"}
TIMEOUT = 10.0  # seconds for one request
ARRIVAL = 30.0  # seconds to wait for a version that an execution on this machine is still registering


class RegistryError(UserError):
    """The registry or its server does not answer, or does not allow something. The message is one line."""


@dataclass(frozen=True)
class Version:
    """One registered version, as stored on the server.

    Attributes
    ----------
    number : int
    stage : str
        The stage according to the server.
    aliases : tuple of str
        All aliases, not only those in `ALIASES`.
    tags : mapping of str to str
    run_id : str
        The run that logged the model.
    source : str
        URI of the logged model.
    description : str
    updated : int
        Time of the last change, in milliseconds since 1970.
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
        """Return the stage according to the tag; "None" without a tag."""
        return self.tags.get(STAGE, NONE)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Return the moves of this version, oldest first."""
        return [json.loads(self.tags[key]) for key in sorted(self.tags) if key.startswith(EVENT)]


@dataclass(frozen=True)
class Model:
    """A registered model.

    Attributes
    ----------
    name, description : str
    versions : mapping of int to Version
        All versions, by number.
    """

    name: str
    description: str = field(repr=False)
    versions: Mapping[int, Version]

    def version(self, number: int) -> Version:
        """Return a version.

        Parameters
        ----------
        number : int

        Raises
        ------
        RegistryError
            If there is no such version; the message lists the existing ones.
        """
        if number not in self.versions:
            known = ", ".join(map(str, sorted(self.versions))) or "none"
            raise RegistryError(f"{self.name} has no version {number}; its versions are {known}")
        return self.versions[number]

    def within(self, stage: str) -> list[Version]:
        """Return the versions in a stage: the one with the stage's alias first, then the last changed ones.

        Parameters
        ----------
        stage : str
        """
        versions = [version for version in self.versions.values() if version.stage == stage]
        return sorted(versions, key=lambda v: (ALIASES.get(stage) in v.aliases, v.updated), reverse=True)

    def holder(self, stage: str) -> int | None:
        """Return the number of the version in a stage, or None if there is none.

        Parameters
        ----------
        stage : str
        """
        return next((version.number for version in self.within(stage)), None)

    def events(self) -> list[dict[str, Any]]:
        """Return the moves of all versions, oldest first."""
        events = [event for version in self.versions.values() for event in version.events]
        return sorted(events, key=lambda event: (event["when"], event["to"] != ARCHIVED))

    def disagreements(self) -> list[str]:
        """Return a sentence for each inconsistency between stage, alias and tag, and for each incomplete move."""
        messages = []
        for number, version in sorted(self.versions.items()):
            if version.tag != version.stage:
                messages.append(f"version {number} is in {version.stage}, its tag {STAGE} says {version.tag}")
            for stage, alias in ALIASES.items():
                if (alias in version.aliases) != (version.stage == stage):
                    has = "has" if alias in version.aliases else "lacks"
                    messages.append(f"version {number} is in {version.stage} and {has} the alias {alias}")
            if PENDING in version.tags:
                move = json.loads(version.tags[PENDING])
                messages.append(
                    f"version {number}: the move to {move['to']} that {move['by']} began at {move['when']} was "
                    "not completed"
                )
        for stage in ALIASES:
            if len(holders := self.within(stage)) > 1:
                numbers = " and ".join(str(version.number) for version in holders)
                messages.append(f"{stage} contains the versions {numbers}")
        return messages


def parse_version(text: str, name: str = NAME) -> tuple[str, int]:
    """Return model and number of a registered version that a user has named.

    Parameters
    ----------
    text : str
        "3" or "battle_winner/3".
    name : str, default "battle_winner"
        The registered model that a number alone belongs to.

    Raises
    ------
    RegistryError
        If it is neither.
    """
    model, _, number = text.rpartition("/")
    if number.isdecimal() and (model or "/" not in text):
        return model or name, int(number)
    file = f"; {text} is a file in params/, not a registered version" if text in versions() else ""
    raise RegistryError(f"version: expected a number or name/number, as in {name}/3, got {text!r}{file}")


def connect(uri: str = "") -> MlflowRest:
    """Return a connection to an MLflow server.

    Parameters
    ----------
    uri : str
        Address; by default the server of this checkout.

    Raises
    ------
    RegistryError
        If no server answers.
    """
    uri = uri or tracking_uri()
    if not answers(uri):
        raise RegistryError(
            f"no MLflow server answers at {uri}: `make server` starts one, MLFLOW_TRACKING_URI names another"
        )
    return MlflowRest(uri, TIMEOUT)


@contextlib.contextmanager
def connected(name: str) -> Iterator[MlflowRest]:
    """Connect to the server of this checkout, and turn its errors into RegistryErrors of one line.

    Parameters
    ----------
    name : str
        The subject of error messages: a registered model, or "its runs".

    Yields
    ------
    MlflowRest

    Raises
    ------
    RegistryError
        If no server answers, it refuses a request, or the connection is lost.
    """
    rest = connect()
    try:
        yield rest
    except ServerError as error:
        raise _explained(error, rest, name) from None
    except (ConnectionError, TimeoutError, URLError) as error:
        raise RegistryError(
            f"{rest.uri} does not answer any more ({error}); repeat the command when it answers again"
        ) from None


def _explained(error: ServerError, rest: MlflowRest, name: str) -> RegistryError:
    if error.status == 401:
        return RegistryError(
            f"{rest.uri} requires a name and a password: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if error.denied:
        return RegistryError(
            f"{rest.uri} does not allow {user_name()} to access {name} (HTTP {error.status}); changing stages "
            "needs the role promoter"
        )
    return RegistryError(f"{rest.uri}: {' '.join(str(error).split())}")


def read(rest: MlflowRest, name: str) -> Model:
    """Read a registered model with all its versions.

    Parameters
    ----------
    rest : MlflowRest
    name : str

    Raises
    ------
    RegistryError
        If there is no such model.
    OSError, ServerError
        If the server does not answer, or refuses the request.
    """
    try:
        registered = rest.call("GET", "registered-models/get", name=name)["registered_model"]
    except ServerError as error:
        if error.code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise RegistryError(
            f"{rest.uri} has no registered model {name}: train.ipynb registers a model if "
            "register_model is true, in the file of the version or with -p register_model True"
        ) from None
    aliases: dict[int, list[str]] = {}
    for alias in registered.get("aliases", []):
        aliases.setdefault(int(alias["version"]), []).append(alias["alias"])
    asked = {"filter": f"name='{name}'", "max_results": 1000}
    versions: dict[int, Version] = {}
    for entry in rest.pages("GET", "model-versions/search", "model_versions", **asked):
        number = int(entry["version"])
        versions[number] = Version(
            number,
            entry.get("current_stage", NONE),
            tuple(aliases.get(number, ())),
            {tag["key"]: tag.get("value", "") for tag in entry.get("tags", [])},
            entry.get("run_id", ""),
            entry.get("source", ""),
            entry.get("description", ""),
            int(entry.get("last_updated_timestamp", 0)),
        )
    return Model(name, registered.get("description", ""), dict(sorted(versions.items())))


def read_with(rest: MlflowRest, name: str, number: int) -> Model:
    """Read a registered model, and wait for a version that a notebook on this machine may still be registering.

    Parameters
    ----------
    rest : MlflowRest
    name : str
    number : int
        The version. It is waited for at most `ARRIVAL` seconds, and only while executions on this machine are being
        delivered to the server.

    Returns
    -------
    Model
        Possibly without the version.

    Raises
    ------
    RegistryError, OSError, ServerError
        As in `read`.
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
        coming = is_delivering(rest.uri) and time.monotonic() < deadline  # else read once more
        if coming:
            time.sleep(0.2)


def moment() -> str:
    """Return the current time, UTC, as ISO 8601 text with milliseconds. Later times sort after earlier ones."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

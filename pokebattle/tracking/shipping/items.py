"""What is delivered, one thing at a time: batches of values, requests of MLflow's, files. Standard library only."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pokebattle.tracking.ids import LOCAL_ID
from pokebattle.tracking.shipping.rest import BATCH, Chunks, pairs


@dataclass
class Item:
    """One thing to deliver; without what is ``vital`` there is no run."""

    failures: int = field(default=0, init=False)
    unclear: bool = field(default=False, init=False)  # it was sent, and may have been carried out
    vital: bool = field(default=False, init=False)


@dataclass
class Batch(Item):
    """Metric points, parameters and tags of one run."""

    run: str
    metrics: list[dict[str, Any]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def takes(self, other: "Batch") -> bool:
        """Tell whether ``other`` can travel in this batch without changing what either means."""
        clash = any(self.params.get(key, value) != value for key, value in other.params.items())
        return self.run == other.run and len(self.metrics) < BATCH["metrics"] and not clash

    def halves(self) -> "list[Batch]":
        """Return two smaller batches, each of other names where there are several; none of a single thing."""
        parts: list[tuple[str, Any]] = [
            *(("metrics", point) for point in self.metrics),
            *(("params", pair) for pair in self.params.items()),
            *(("tags", pair) for pair in self.tags.items()),
        ]
        names = list(dict.fromkeys(_name(part) for part in parts))
        if len(names) > 1:
            first = set(names[: len(names) // 2])
            cut = [[part for part in parts if (_name(part) in first) == here] for here in (True, False)]
        else:
            cut = [parts[:1], parts[1:]]
        return [_batch(self.run, some) for some in cut] if len(parts) > 1 else []

    def body(self) -> dict[str, Any]:
        """Return what one request says of it."""
        return {"run_id": self.run, "metrics": self.metrics, "params": pairs(self.params), "tags": pairs(self.tags)}

    def __str__(self) -> str:
        names = [*(point["key"] for point in self.metrics), *self.params, *self.tags]
        return f"{', '.join(sorted(set(names)))[:200]} of run {self.run}"


def _name(part: tuple[str, Any]) -> tuple[str, str]:
    what, thing = part
    return what, thing["key"] if what == "metrics" else thing[0]


def _batch(run: str, parts: list[tuple[str, Any]]) -> Batch:
    def kind(name: str) -> list[Any]:
        return [part for what, part in parts if what == name]

    return Batch(run, kind("metrics"), dict(kind("params")), dict(kind("tags")))


@dataclass
class Experiment(Item):
    """The experiment that an execution's run belongs to: found by a given id or its name, else created."""

    name: str
    token: str
    root: str
    given_id: str = ""

    def __str__(self) -> str:
        return f"experiment {self.name}"


@dataclass
class Call(Item):
    """A request of MLflow's API.

    ``token`` is the local id under which the answer is noted, ``creates`` what it creates (experiment, run, model,
    registered or version), ``root`` the local id of the artifact folder that comes with it. What is ``shared`` may have
    been created by another execution, and is looked for first. What is ``doubtful`` was sent by the kernel itself, whom
    no answer reached; what has one of the ``known`` ids is something else. It was sent at the time ``asked`` (ms), or
    later; if that is ``exact``, what the server shows twice since then is a double.
    """

    method: str
    path: str
    body: dict[str, Any]
    token: str = ""
    creates: str = ""
    root: str = ""
    shared: bool = False
    doubtful: bool = False
    asked: int = 0
    exact: bool = False
    known: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The path below MLflow's API."""
        return re.sub("^/api/[23].0/mlflow/", "", self.path)

    def __str__(self) -> str:
        return f"{self.method} {self.path} {json.dumps(self.body)[:200]}"


@dataclass
class Removal(Item):
    """A run (the server's id) that is no longer wanted."""

    run: str

    def __str__(self) -> str:
        return f"removal of run {self.run}"


@dataclass
class File(Item):
    """An artifact: ``path`` below the folder ``root`` (a local id, or a path of the server's)."""

    root: str
    path: str
    chunks: Chunks
    staged: Path | None = None

    def __str__(self) -> str:
        return f"artifact {self.path}"


def registers(item: Item) -> bool:
    """Tell whether an item belongs to the registry, which may be closed to somebody who may log runs."""
    return isinstance(item, Call) and ("/registered-models/" in item.path or "/model-versions/" in item.path)


def carries_id(call: Call, body: dict[str, Any]) -> bool:
    """Tell whether what a request creates can be found by its local id."""
    return {"key": LOCAL_ID, "value": call.token} in body.get("tags", [])


def id_of(call: Call, answer: dict[str, Any]) -> str:
    """Return the server's id in an answer to such a call; a version's within its model. Nothing in one to another."""
    if call.creates == "run":
        return str(answer.get("run", {}).get("info", {}).get("run_id", ""))
    if call.creates == "model":
        return str(answer.get("model", {}).get("info", {}).get("model_id", ""))
    version = answer.get("model_version", {})
    return str(version.get("version", "")) if version.get("name") == call.body.get("name") else ""


def ids_of(call: Call, answer: dict[str, Any]) -> dict[str, str]:
    """Return the server's ids in an answer by the local ones."""
    if call.creates == "run":
        info = answer["run"]["info"]
        return {call.token: info["run_id"], call.root: info["artifact_uri"]}
    if call.creates == "model":
        info = answer["model"]["info"]
        return {f"m-{call.token}": info["model_id"], call.root: info["artifact_uri"]}
    if call.creates == "version":
        return {call.token: str(answer["model_version"]["version"])}
    if call.creates == "experiment":
        found = answer["experiment"]
        return {call.token: found["experiment_id"], call.root: found.get("artifact_location", "")}
    return {}

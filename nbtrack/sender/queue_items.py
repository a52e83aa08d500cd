"""The items that are delivered: batches of values, requests of MLflow's API, files. Standard library only."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbtrack.mlflow_rest import BATCH, Chunks, pairs
from nbtrack.tags import LOCAL_ID


@dataclass
class Item:
    """One item to deliver. Without a ``vital`` item there is no run."""

    failures: int = field(default=0, init=False)
    unclear: bool = field(default=False, init=False)  # it was sent and may have been carried out
    vital: bool = field(default=False, init=False)


@dataclass
class Batch(Item):
    """Metric points, parameters and tags of one run."""

    run: str
    metrics: list[dict[str, Any]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def takes(self, other: "Batch") -> bool:
        """Return whether ``other`` can be merged into this batch without changing the result.

        Parameters
        ----------
        other : Batch
        """
        clash = any(self.params.get(key, value) != value for key, value in other.params.items())
        return self.run == other.run and len(self.metrics) < BATCH["metrics"] and not clash

    def halves(self) -> "list[Batch]":
        """Return two smaller batches, with different names if there are several; an empty list for a single value."""
        parts: list[tuple[str, Any]] = [
            *(("metrics", point) for point in self.metrics),
            *(("params", pair) for pair in self.params.items()),
            *(("tags", pair) for pair in self.tags.items()),
        ]
        names = list(dict.fromkeys(_name(part) for part in parts))
        if len(names) > 1:
            first = set(names[: len(names) // 2])
            cut = [[part for part in parts if (_name(part) in first) == in_first] for in_first in (True, False)]
        else:
            cut = [parts[:1], parts[1:]]
        return [_batch(self.run, some) for some in cut] if len(parts) > 1 else []

    def body(self) -> dict[str, Any]:
        """Return the body of a log-batch request."""
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
    """The experiment of an execution's run: found by a given id or its name, else created.

    Attributes
    ----------
    name : str
    token, root : str
        Local ids of the experiment and of its artifact folder.
    given_id : str
        The server's id, if the environment names it.
    """

    name: str
    token: str
    root: str
    given_id: str = ""

    def __str__(self) -> str:
        return f"experiment {self.name}"


@dataclass
class Call(Item):
    """A request of MLflow's API.

    Attributes
    ----------
    method, path, body
        The request.
    token : str
        The local id under which the response is recorded.
    creates : str
        What it creates: ``experiment``, ``run``, ``model``, ``registered`` or ``version``; empty for nothing.
    root : str
        The local id of the artifact folder that is created with it.
    shared : bool
        Another execution may have created the same, so it is searched for first.
    doubtful : bool
        The kernel sent it itself and received no response.
    asked : int
        Earliest time at which it was sent, in ms.
    exact : bool
        Whether ``asked`` is the exact time: whatever the server shows twice since then is a duplicate.
    known : list of str
        Ids on the server that belong to something else.
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
    """Deletes a run, given by the server's id, that is no longer needed."""

    run: str

    def __str__(self) -> str:
        return f"removal of run {self.run}"


@dataclass
class File(Item):
    """An artifact.

    Attributes
    ----------
    root : str
        The artifact folder: a local id or a path on the server.
    path : str
        The artifact's path below it.
    chunks : callable
        Returns the content in pieces.
    staged : Path or None
        The copy in the spool, which is deleted after delivery.
    """

    root: str
    path: str
    chunks: Chunks
    staged: Path | None = None

    def __str__(self) -> str:
        return f"artifact {self.path}"


def registers(item: Item) -> bool:
    """Return whether an item belongs to the registry, for which an account that may log runs may lack permission.

    Parameters
    ----------
    item : Item
    """
    return isinstance(item, Call) and ("/registered-models/" in item.path or "/model-versions/" in item.path)


def carries_id(call: Call, body: dict[str, Any]) -> bool:
    """Return whether what a request creates can be found by its local id.

    Parameters
    ----------
    call : Call
    body : dict
        Its body with the server's ids.
    """
    return {"key": LOCAL_ID, "value": call.token} in body.get("tags", [])


def id_of(call: Call, answer: dict[str, Any]) -> str:
    """Return the server's id of what a call has created; of a version, its number within the model.

    Parameters
    ----------
    call : Call
    answer : dict
        A response, possibly to another call.

    Returns
    -------
    str
        Empty if the response is to another kind of call, or about another model.
    """
    if call.creates == "run":
        return str(answer.get("run", {}).get("info", {}).get("run_id", ""))
    if call.creates == "model":
        return str(answer.get("model", {}).get("info", {}).get("model_id", ""))
    version = answer.get("model_version", {})
    return str(version.get("version", "")) if version.get("name") == call.body.get("name") else ""


def ids_of(call: Call, answer: dict[str, Any]) -> dict[str, str]:
    """Return the server's ids in a response, by local id.

    Parameters
    ----------
    call : Call
    answer : dict
        The response to it.
    """
    if call.creates == "run":
        info = answer["run"]["info"]
        return {call.token: info["run_id"], call.root: info["artifact_uri"]}
    if call.creates == "model":
        info = answer["model"]["info"]
        return {f"m-{call.token}": info["model_id"], call.root: info["artifact_uri"]}
    if call.creates == "version":
        return {call.token: str(answer["model_version"]["version"])}
    if call.creates == "experiment":
        experiment = answer["experiment"]
        return {call.token: experiment["experiment_id"], call.root: experiment.get("artifact_location", "")}
    return {}

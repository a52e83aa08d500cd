"""Answers mlflow while the server cannot be reached: local ids for what is created, nothing for what is unknown.

The sender maps the local ids to the server's once it has created the entities. Nothing here imports mlflow.
"""

import time
from pathlib import Path, PurePosixPath
from typing import Any

from nbtrack.kernel.execution import Execution
from nbtrack.kernel.nonblocking_writes import LOGGING, Write, run_of
from nbtrack.local_ids import new_local_id, new_local_version
from nbtrack.tags import LOCAL_ID, RUN_NAME

CREATIONS = {
    "experiments/create": "experiment",
    "runs/create": "run",
    "logged-models": "model",
    "registered-models/create": "registered",
    "model-versions/create": "version",
}
ENTITY = {
    "runs/get": "run",
    "experiments/get-by-name": "named",
    "experiments/get": "experiment",
    "logged-models/": "model",
    "model-versions/get": "version",
    "registered-models/get": "registered",
}
HISTORY = 10_000  # maximum number of metric points that are remembered per run

Answer = tuple[int, dict[str, Any]]


class KnownEntities:
    """Remembers what this process has created and logged, and answers in place of a server that is away."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], dict[str, Any]] = {}  # by kind and id
        self.kept: set[str] = set()  # registered models whose creation waits for delivery
        self.files: dict[str, Path] = {}  # logged files that wait for delivery, by artifact path

    def remember(self, kind: str, whole: dict[str, Any]) -> None:
        """Store the response to a creation, from the server or from `record_offline`.

        Parameters
        ----------
        kind : {"experiment", "run", "model", "registered", "version"}
        whole : dict
            The response.
        """
        if kind == "run":
            self._known[kind, whole["run"]["info"]["run_id"]] = whole
        elif kind == "model":
            self._known[kind, whole["model"]["info"]["model_id"]] = whole
        elif kind == "experiment" and (experiment := whole.get("experiment")):
            self._known[kind, experiment["experiment_id"]] = self._known["named", experiment["name"]] = {
                "experiment": experiment
            }
        elif kind == "registered":
            self._known[kind, whole["registered_model"]["name"]] = whole
        elif kind == "version":
            version = whole["model_version"]
            self._known[kind, f"{version['name']}/{version['version']}"] = whole

    def follow(self, write: Write) -> None:
        """Update what is remembered of a run with what is logged to it.

        Parameters
        ----------
        write : Write
        """
        run = self._known.get(("run", write.run))
        if run is None or write.name not in LOGGING:
            return
        data = run["run"].setdefault("data", {})
        for kind in ("metrics", "params", "tags"):
            if fresh := write.entries(kind):
                if kind == "metrics":
                    history = self._known.setdefault(("history", run["run"]["info"]["run_id"]), {"metrics": []})
                    history["metrics"] += fresh[: HISTORY - len(history["metrics"])]
                latest = {entry["key"]: entry for entry in [*data.get(kind, []), *fresh]}
                data[kind] = [{k: v for k, v in e.items() if k[:4] != "run_"} for e in latest.values()]

    def listed(self, folder: str) -> dict[str, Any]:
        """Return the files below an artifact folder in the server's format.

        Parameters
        ----------
        folder : str
        """
        entries: dict[str, dict[str, Any]] = {}
        for address, file in self.files.items():
            if folder in map(str, PurePosixPath(address).parents):
                name, *below = PurePosixPath(address).relative_to(folder).parts
                size = {} if below or not file.exists() else {"file_size": file.stat().st_size}
                entries[name] = {"path": name, "is_dir": bool(below), **size}
        return {"files": [entries[name] for name in sorted(entries)]}

    def look_up(self, name: str, params: dict[str, Any]) -> dict[str, Any] | None:
        """Return what is remembered of an entity that mlflow reads, in the server's format; None if it is unknown.

        Parameters
        ----------
        name : str
            The request's path below MLflow's API.
        params : dict
            The request's query or body.
        """
        if name == "metrics/get-history":
            if ("run", run_of(params)) not in self._known:
                return None
            points = self._known.get(("history", run_of(params)), {"metrics": []})["metrics"]
            return {"metrics": [point for point in points if point["key"] == params.get("metric_key")]}
        kind = next((kind for path, kind in ENTITY.items() if name.startswith(path)), "")
        if kind == "version":
            key = f"{params.get('name')}/{params.get('version')}"
        else:
            names = (params.get(one) for one in ("run_id", "experiment_id", "experiment_name", "name"))
            key = str(next(filter(None, names), name.rpartition("/")[2]))
        return self._known.get((kind, key))

    def record_offline(
        self, execution: Execution, method: str, path: str, write: Write, unclear: dict[str, Any]
    ) -> Answer:
        """Record a request for the sender, and answer it.

        Parameters
        ----------
        execution : Execution
        method, path : str
        write : Write
            The request, which has this method and path.
        unclear : dict
            Empty unless the server may have carried out the request; then ``doubtful`` is true, and ``began`` is the
            earliest time of that, in ms.

        Returns
        -------
        status : int
            HTTP status.
        body : dict
            The response.
        """
        name, body = write
        if method == "POST" and name in CREATIONS:
            return self._create(execution, path, CREATIONS[name], body, unclear)
        execution.emit("call", method=method, path=path, body=body, **unclear)
        kind, key = ("run", write.run) if name == "runs/update" else ("model", name.partition("/")[2])
        if not (known := self._known.get((kind, key))):
            return 200, {}
        info = known[kind]["info"]
        info |= {key: value for key, value in body.items() if key in {"status", "end_time", "run_name"}}
        return 200, {"run_info": info} if kind == "run" else known

    def _create(
        self, execution: Execution, path: str, kind: str, body: dict[str, Any], unclear: dict[str, Any]
    ) -> Answer:
        token, root, sent = new_local_version() if kind == "version" else new_local_id(), new_local_id(), body
        body = body | {"tags": list(body.get("tags", []))}
        if kind == "run" and not body.get("run_name"):
            named = [tag["value"] for tag in body["tags"] if tag["key"] == RUN_NAME]
            body["run_name"] = named[0] if named else _random_name()
        if kind == "model" and not body.get("name"):
            body["name"] = _random_name()
        if not unclear:  # otherwise the sender recognises it by what was sent
            id_tags = [{"key": LOCAL_ID, "value": token}] if kind in {"run", "model", "version"} else []
            sent = body | {"tags": [*body["tags"], *id_tags]} if body["tags"] or id_tags else sent
        known = {"known": self._server_ids(kind)} if unclear else {}
        execution.emit(
            "call", method="POST", path=path, body=sent, token=token, creates=kind, root=root, **unclear, **known
        )
        if kind == "registered":
            self.kept.add(body["name"])
        whole = _local(kind, body, token, root)
        self.remember(kind, whole)
        return 200, whole

    def _server_ids(self, kind: str) -> list[str]:
        """Return the ids of known entities, so that the sender does not take one of them for the one just created."""
        return [key.rpartition("/")[2] for known, key in self._known if known == kind]


def _random_name() -> str:
    from mlflow.utils.name_utils import _generate_random_name  # a cell has already imported mlflow

    return str(_generate_random_name())


def _local(kind: str, body: dict[str, Any], token: str, root: str) -> dict[str, Any]:
    """Return the server's response to a creation, with local ids."""
    now, artifacts = int(time.time() * 1000), f"mlflow-artifacts:/{root}"
    if kind == "run":
        info = {
            "run_id": token,
            "run_uuid": token,
            "run_name": body["run_name"],
            "status": "RUNNING",
            "experiment_id": body["experiment_id"],
            "user_id": body.get("user_id", ""),
            "start_time": body.get("start_time", now),
            "artifact_uri": artifacts,
            "lifecycle_stage": "active",
        }
        return {"run": {"info": info, "data": {"tags": body["tags"]}}}
    if kind == "experiment":
        experiment = {
            "experiment_id": token,
            "name": body["name"],
            "artifact_location": artifacts,
            "lifecycle_stage": "active",
            "tags": body.get("tags", []),
        }
        return {"experiment_id": token, "experiment": experiment}
    if kind == "model":
        info = {
            "model_id": f"m-{token}",
            "experiment_id": body["experiment_id"],
            "name": body["name"],
            "creation_timestamp_ms": now,
            "last_updated_timestamp_ms": now,
            "artifact_uri": artifacts,
            "status": "LOGGED_MODEL_PENDING",
            "source_run_id": body.get("source_run_id", ""),
            "model_type": body.get("model_type", ""),
            "tags": body["tags"],
        }
        return {"model": {"info": info, "data": {"params": body.get("params", [])}}}
    if kind == "registered":
        return {"registered_model": {"name": body["name"], "creation_timestamp": now, "last_updated_timestamp": now}}
    return {
        "model_version": {
            "name": body["name"],
            "version": token,
            "creation_timestamp": now,
            "last_updated_timestamp": now,
            "current_stage": "None",
            "source": body.get("source", ""),
            "run_id": body.get("run_id", ""),
            "model_id": body.get("model_id", ""),
            "status": "READY",
            "tags": body["tags"],
        }
    }

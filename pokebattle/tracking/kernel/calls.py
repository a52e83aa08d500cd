"""What cells say with ``mlflow`` goes through the journal instead of waiting for the server.

All of mlflow's REST traffic passes one function, ``mlflow.utils.rest_utils.http_request``, which is replaced in kernels
only. What cells write is written down and delivered by the shipper. What creates something waits for the answer as long
as the server gets on with it; else mlflow gets an answer with local ids, which the shipper maps later. Questions go to
the server as ever. Nothing here imports mlflow.
"""

import functools
import json
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from pokebattle.tracking.ids import LOCAL, LOCAL_ID, new_local_id
from pokebattle.tracking.kernel.execution import Execution
from pokebattle.tracking.kernel.imports import after_import, replace
from pokebattle.tracking.notice import say_once

API = re.compile(r"/api/[23]\.0/mlflow/")
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"
QUIET = re.compile(  # writes whose answer says nothing
    r"runs/(log-metric|log-parameter|log-batch|log-inputs|outputs|log-model|set-tag|delete-tag)$"
    r"|experiments/(set-experiment-tag|delete-experiment-tag)$|logged-models/[^/]+/(tags|params)"
    r"|(registered-models|model-versions)/(set-tag|delete-tag)$"
)
CREATIONS = {"experiments/create": "experiment", "runs/create": "run", "logged-models": "model",
             "registered-models/create": "registered", "model-versions/create": "version"}  # fmt: skip
ENTITY = {"run": "runs/get", "experiment": "experiments/get", "model": "logged-models/",
          "version": "model-versions/get", "registered": "registered-models/get"}  # fmt: skip
HISTORY = 10_000  # metric points that are remembered for the time in which the server cannot be asked
QUESTION = (0.3, 30.0)  # seconds to connect and to read, for a question of the user's

_journalled: "JournalledRequests | None" = None


def install(current: Callable[[], Execution | None]) -> None:
    """Replace mlflow's way to the server once a cell imports mlflow; ``current`` tells which execution is under way."""

    def attach(module: Any) -> None:
        global _journalled
        _journalled = JournalledRequests(module, current)
        replace(module, "http_request", _journalled.wrap(module.http_request))

    after_import("mlflow.utils.rest_utils", attach)


class JournalledRequests:
    """Stands in for the server towards mlflow."""

    def __init__(self, module: Any, current: Callable[[], Execution | None]) -> None:
        self.module, self.current = module, current
        self.mirror: dict[tuple[str, str], dict[str, Any]] = {}  # what this kernel created, by kind and id

    def wrap(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function that mlflow will call."""

        @functools.wraps(plain)
        def http_request(host_creds: Any, endpoint: str, method: str, *args: Any, **kwargs: Any) -> Any:
            execution = self.current()
            url = host_creds.host.rstrip("/") + endpoint
            if execution is None or not url.startswith(execution.uri + "/api/"):
                return plain(host_creds, endpoint, method, *args, **kwargs)
            path = url[len(execution.uri) :]
            answer = self._handled(execution, method, path, kwargs)
            if answer is not None:
                return self._response(url, *answer)
            return self._ask(execution, plain, (host_creds, endpoint, method, *args), kwargs)

        return http_request

    def _response(self, url: str, status: int, body: dict[str, Any]) -> Any:
        response = self.module.requests.Response()
        response.status_code, response.url, response.encoding = status, url, "utf-8"
        response._content = json.dumps(body).encode()
        return response

    def _ask(self, execution: Execution, plain: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """Put a question to the server, by its own ids, after it has taken what was written before."""
        if not execution.settled() and not execution.online:
            reason = execution.progress.facts.get("away") or execution.progress.facts.get("refused") or "it takes long"
            raise self.module.MlflowException(f"{execution.uri} cannot answer now ({reason})")
        host, endpoint, *rest = args
        for part in ("json", "params"):
            if kwargs.get(part):
                kwargs[part] = json.loads(self._translate(execution, json.dumps(kwargs[part])))
        kwargs = {"timeout": QUESTION, "max_retries": 1} | kwargs
        return plain(host, self._translate(execution, endpoint), *rest, **kwargs)

    def _translate(self, execution: Execution, text: str) -> str:
        return LOCAL.sub(lambda found: execution.progress.ids.get(found[2], found[0]), text)

    # -- one request -----------------------------------------------------------------------------

    def _handled(self, execution: Execution, method: str, path: str, kwargs: dict[str, Any]) -> tuple[int, Any] | None:
        """Return what `handle` does; where that fails the server is asked, and a write without answer is dropped."""
        try:
            return self.handle(execution, method, path, kwargs)
        except Exception as error:
            say_once(f"a call of mlflow's is not written down ({type(error).__name__}: {error})")
            quiet = path.startswith(ARTIFACTS) or ((found := API.match(path)) and QUIET.match(path[found.end() :]))
            return (200, {}) if method != "GET" and quiet else None

    def handle(self, execution: Execution, method: str, path: str, kwargs: dict[str, Any]) -> tuple[int, Any] | None:
        """Return status and body of the answer; None when the server itself must be asked."""
        if path.startswith(ARTIFACTS):
            if method != "PUT":
                return None
            staged = execution.journal.stage(kwargs.get("data") or b"")
            if staged:
                execution.emit("artifact", path=unquote(path[len(ARTIFACTS) :]), file=staged)
            return 200, {}
        if not (found := API.match(path)):
            return None
        name = path[found.end() :]
        body = kwargs.get("json") or {}
        if method == "GET":
            return self._look_up(execution, name, kwargs.get("params") or {})
        if QUIET.match(name):
            self._follow(name, body)
            execution.emit("call", method=method, path=path, body=body)
            return 200, {}
        if method == "POST" and name in CREATIONS:
            return self._create(execution, path, CREATIONS[name], dict(body))
        if name == "runs/update" or (method == "PATCH" and name.startswith("logged-models/")):
            return self._update(execution, method, path, name, body)
        if "search" in name or "get" in name.rpartition("/")[2]:
            return None
        return self._order(execution, method, path, body)

    def _order(self, execution: Execution, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any] | None:
        """Write a request down whose answer matters, and wait for it."""
        token = new_local_id()
        execution.emit("call", method=method, path=path, body=body, token=token)
        answer = execution.answer(token)
        return (answer["status"], answer["body"]) if answer else (200, {})

    def _create(self, execution: Execution, path: str, kind: str, body: dict[str, Any]) -> tuple[int, Any]:
        token, root = new_local_id(), new_local_id()
        if kind in {"run", "model", "version"}:
            body["tags"] = [*body.get("tags", []), {"key": LOCAL_ID, "value": token}]
        for tag in body.get("tags", []):
            if tag["key"] == "mlflow.source.name" and tag["value"].endswith("ipykernel_launcher.py"):
                tag["value"] = execution.start["notebook"] or tag["value"]  # mlflow sees the kernel's program only
        if kind == "run" and not body.get("run_name"):
            named = [tag["value"] for tag in body["tags"] if tag["key"] == "mlflow.runName"]
            body["run_name"] = named[0] if named else _random_name()
        if kind == "model" and not body.get("name"):
            body["name"] = _random_name()
        execution.emit("call", method="POST", path=path, body=body, token=token, creates=kind, root=root)
        answer = execution.answer(token)
        if answer and answer["status"] != 200:
            return int(answer["status"]), answer["body"]
        whole = answer["body"] if answer else _local(kind, body, token, root)
        self._remember(kind, whole)
        return 200, whole

    def _remember(self, kind: str, whole: dict[str, Any]) -> None:
        if kind == "run":
            self.mirror[kind, whole["run"]["info"]["run_id"]] = whole
        elif kind == "model":
            self.mirror[kind, whole["model"]["info"]["model_id"]] = whole
        elif kind == "experiment":
            found = whole["experiment"]
            self.mirror[kind, found["experiment_id"]] = self.mirror["named", found["name"]] = whole
        elif kind == "registered":
            self.mirror[kind, whole["registered_model"]["name"]] = whole
        else:
            found = whole["model_version"]
            self.mirror[kind, f"{found['name']}/{found['version']}"] = whole

    def _update(
        self, execution: Execution, method: str, path: str, name: str, body: dict[str, Any]
    ) -> tuple[int, Any] | None:
        """Write down a change whose answer is the changed entity, which is known if it was created here."""
        kind, key = ("run", body.get("run_id", "")) if name == "runs/update" else ("model", name.split("/")[1])
        if not (known := self.mirror.get((kind, key))):
            return self._order(execution, method, path, body)
        info = known[kind]["info"]
        info |= {key: value for key, value in body.items() if key in {"status", "end_time", "run_name"}}
        execution.emit("call", method=method, path=path, body=body)
        return 200, {"run_info": info} if kind == "run" else known

    def _follow(self, name: str, body: dict[str, Any]) -> None:
        """Keep what is known of a run or a model up to date with what is logged to it."""
        if run := self.mirror.get(("run", str(body.get("run_id") or body.get("run_uuid")))):
            data, one = run["run"].setdefault("data", {}), [body]
            for kind, single in (("metrics", "log-metric"), ("params", "log-parameter"), ("tags", "set-tag")):
                fresh = one if name == f"runs/{single}" else body.get(kind, [])
                if fresh and kind == "metrics":
                    history = self.mirror.setdefault(("history", run["run"]["info"]["run_id"]), {"metrics": []})
                    history["metrics"] += fresh[: HISTORY - len(history["metrics"])]
                if fresh:
                    latest = {entry["key"]: entry for entry in [*data.get(kind, []), *fresh]}
                    data[kind] = [{k: v for k, v in e.items() if k[:4] != "run_"} for e in latest.values()]
        elif name.endswith("/tags") and (model := self.mirror.get(("model", name.split("/")[1]))):
            latest = {tag["key"]: tag for tag in [*model["model"]["info"].get("tags", []), *body.get("tags", [])]}
            model["model"]["info"]["tags"] = list(latest.values())

    # -- questions -------------------------------------------------------------------------------

    def _look_up(self, execution: Execution, name: str, params: dict[str, Any]) -> tuple[int, Any] | None:
        """Answer what mlflow asks by itself all the time; what else is asked is left to the server."""
        if name.startswith("server-"):  # which extras the server has: none that is needed here
            return 404, {}
        kind = next((kind for kind, path in ENTITY.items() if name.startswith(path)), "")
        if name == "metrics/get-history":  # by every log_model
            kind = "history"
        elif not kind or name.count("/") > 1:
            return None
        if name == "experiments/get-by-name":
            kind, key = "named", str(params.get("experiment_name"))
        elif kind == "history":
            key = str(params.get("run_id") or params.get("run_uuid"))
        elif kind == "version":
            key = f"{params.get('name')}/{params.get('version')}"
        else:
            key = str(params.get(f"{kind}_id") or params.get("name") or name.rpartition("/")[2])
        known = self.mirror.get((kind, key))
        if kind == "history" and ("run", key) in self.mirror:
            points = known["metrics"] if known else []
            known = {"metrics": [point for point in points if point["key"] == params.get("metric_key")]}
        elif known and kind != "run":  # what changes in a run, others may change as well
            return 200, known
        token = new_local_id()
        execution.emit("call", method="GET", path=f"/api/2.0/mlflow/{name}", body=params, token=token)
        if answer := execution.answer(token):
            return int(answer["status"]), answer["body"]
        if known:
            return 200, known
        return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"{execution.uri} cannot be asked now"}

    def adopt(self, execution: Execution, run: dict[str, Any]) -> dict[str, Any]:
        """Let mlflow know the execution's own run; return it as the server would."""
        start = execution.start
        info = {"run_id": run["run_id"], "run_uuid": run["run_id"], "experiment_id": run["experiment_id"],
                "run_name": (execution.names or ("", ""))[1], "user_id": start["user"], "status": "RUNNING",
                "start_time": execution.began, "artifact_uri": run["artifact_uri"],
                "lifecycle_stage": "active"}  # fmt: skip
        whole = {"run": {"info": info, "data": {}}}
        self.mirror["run", run["run_id"]] = whole
        place = {"experiment_id": run["experiment_id"], "name": (execution.names or ("", ""))[0],
                 "lifecycle_stage": "active",
                 "artifact_location": run["artifact_uri"].rpartition("/")[0]}  # fmt: skip
        self.mirror["experiment", run["experiment_id"]] = self.mirror["named", place["name"]] = {"experiment": place}
        return whole


def requests() -> JournalledRequests | None:
    """Return what stands in for the server; None before mlflow is imported."""
    return _journalled


def _random_name() -> str:
    from mlflow.utils.name_utils import _generate_random_name  # a cell has imported it

    return str(_generate_random_name())


def _local(kind: str, body: dict[str, Any], token: str, root: str) -> dict[str, Any]:
    """Return the answer that a server would give, with local ids."""
    now, artifacts = int(time.time() * 1000), f"mlflow-artifacts:/{root}"
    if kind == "run":
        info = {"run_id": token, "run_uuid": token, "run_name": body["run_name"], "status": "RUNNING",
                "experiment_id": body["experiment_id"], "user_id": body.get("user_id", ""),
                "start_time": body.get("start_time", now), "artifact_uri": artifacts,
                "lifecycle_stage": "active"}  # fmt: skip
        return {"run": {"info": info, "data": {"tags": body["tags"]}}}
    if kind == "experiment":
        found = {"experiment_id": token, "name": body["name"], "artifact_location": artifacts,
                 "lifecycle_stage": "active", "tags": body.get("tags", [])}  # fmt: skip
        return {"experiment_id": token, "experiment": found}
    if kind == "model":
        info = {"model_id": f"m-{token}", "experiment_id": body["experiment_id"], "name": body["name"],
                "creation_timestamp_ms": now, "last_updated_timestamp_ms": now, "artifact_uri": artifacts,
                "status": "LOGGED_MODEL_PENDING", "source_run_id": body.get("source_run_id", ""),
                "model_type": body.get("model_type", ""), "tags": body["tags"]}  # fmt: skip
        return {"model": {"info": info, "data": {"params": body.get("params", [])}}}
    if kind == "registered":
        return {"registered_model": {"name": body["name"], "creation_timestamp": now, "last_updated_timestamp": now}}
    return {"model_version": {
        "name": body["name"], "version": token, "creation_timestamp": now, "last_updated_timestamp": now,
        "current_stage": "None", "source": body.get("source", ""), "run_id": body.get("run_id", ""),
        "model_id": body.get("model_id", ""), "status": "READY", "tags": body["tags"]}}  # fmt: skip

"""The few calls of MLflow's REST API that open, fill and close a run.

Standard library only: ``import mlflow`` costs seconds, one call here costs milliseconds.
"""

import base64
import http.client
import json
import os
import ssl
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

BATCH = {"metrics": 1000, "params": 100, "tags": 100}  # MLflow's own limits for one log-batch call
IDLE = 2.0  # seconds after which a connection is not used again: the server may have closed it (uvicorn after 5)
LIMIT = {"params": 6000, "tags": 8000}  # characters of a value


class ServerError(Exception):
    """The server answered, and refused: ``status`` and ``code`` say how."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"HTTP {status} {code}: {message}")
        self.status, self.code = status, code


class MlflowRest:
    """A client of one MLflow server, for one thread.

    Parameters
    ----------
    uri : str
        ``http`` or ``https`` address, with an optional path.
    timeout : float
        Seconds that one call may take.
    """

    def __init__(self, uri: str, timeout: float = 10.0) -> None:
        self.uri, self.timeout = uri, timeout
        parts = urlsplit(uri)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"MLFLOW_TRACKING_URI: expected http://host:port, got {uri!r}")
        self._parts = parts
        self._connection: http.client.HTTPConnection | None = None
        self._used = 0.0

    def _headers(self) -> dict[str, str]:
        if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
            return {"Authorization": f"Bearer {token}"}
        if user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
            pair = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}".encode()
            return {"Authorization": "Basic " + base64.b64encode(pair).decode()}
        return {}

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=self.timeout, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=self.timeout)

    def request(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> bytes:
        """Send one request and return the answer's body.

        Raises
        ------
        OSError
            No answer.
        ServerError
            An answer other than success.
        """
        headers = {"Content-Type": kind, **self._headers()}
        if time.monotonic() - self._used > IDLE:
            self.close()
        if self._connection is None:
            self._connection = self._connect()
        try:
            self._connection.request(method, self._parts.path.rstrip("/") + path, body=body, headers=headers)
            answer = self._connection.getresponse()
            data = answer.read()
            self._used = time.monotonic()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}") from error
        if answer.status >= 400:
            self.close()
            raise _server_error(answer.status, data)
        return data

    def close(self) -> None:
        """Drop the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def call(self, method: str, endpoint: str, /, **fields: Any) -> dict[str, Any]:
        """Call ``/api/2.0/mlflow/<endpoint>`` with ``fields`` and return its JSON answer."""
        path = f"/api/2.0/mlflow/{endpoint}"
        if method == "GET":
            query = "&".join(f"{key}={quote(str(value), safe='')}" for key, value in fields.items())
            return json.loads(self.request("GET", f"{path}?{query}") or b"{}")
        return json.loads(self.request(method, path, json.dumps(fields).encode()) or b"{}")

    def experiment(self, name: str) -> str:
        """Return the id of the experiment ``name``, creating it when there is none."""
        for _ in range(2):
            try:
                found = self.call("GET", "experiments/get-by-name", experiment_name=name)
                return str(found["experiment"]["experiment_id"])
            except ServerError as error:
                if error.status != 404:
                    raise
            try:
                return str(self.call("POST", "experiments/create", name=name)["experiment_id"])
            except ServerError as error:  # another kernel was quicker
                if error.code != "RESOURCE_ALREADY_EXISTS":
                    raise
        raise ServerError(409, "RESOURCE_ALREADY_EXISTS", f"experiment {name!r} exists but cannot be read")

    def create_run(self, experiment_id: str, name: str, start_time: int, tags: dict[str, str]) -> dict[str, Any]:
        """Create a run (``start_time`` in ms) and return its ``info``."""
        answer = self.call(
            "POST", "runs/create", experiment_id=experiment_id, run_name=name, start_time=start_time,
            user_id=tags.get("mlflow.user", ""), tags=_pairs(tags, "tags"),
        )  # fmt: skip
        return dict(answer["run"]["info"])

    def log_batch(
        self, run_id: str, metrics: list[dict[str, Any]] | None = None,
        params: dict[str, Any] | None = None, tags: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Log any number of metric points, parameters and tags, in calls of legal size."""
        whole = {
            "metrics": list(metrics or []),
            "params": _pairs(params or {}, "params"),
            "tags": _pairs(tags or {}, "tags"),
        }
        while any(whole.values()):
            part = {kind: values[: BATCH[kind]] for kind, values in whole.items()}
            whole = {kind: values[BATCH[kind] :] for kind, values in whole.items()}
            self.call("POST", "runs/log-batch", run_id=run_id, **part)

    def upload(self, artifact_uri: str, path: str, file: Path) -> None:
        """Store ``file`` as the artifact ``path`` of a run whose artifacts the server proxies."""
        scheme, _, rest = artifact_uri.partition(":")
        if scheme != "mlflow-artifacts":
            raise ServerError(501, "NOT_PROXIED", f"the server does not proxy artifacts ({artifact_uri})")
        root = urlsplit(f"x:{rest}").path.strip("/")
        target = quote(f"/api/2.0/mlflow-artifacts/artifacts/{root}/{path}")
        with file.open("rb") as body:
            self.request("PUT", target, body, "application/octet-stream")


def _pairs(values: dict[str, Any], kind: str) -> list[dict[str, str]]:
    return [{"key": str(key), "value": str(value)[: LIMIT[kind]]} for key, value in values.items()]


def _server_error(status: int, data: bytes) -> ServerError:
    try:
        answer = json.loads(data)
        return ServerError(status, str(answer.get("error_code", "")), str(answer.get("message", ""))[:500])
    except (ValueError, AttributeError):
        return ServerError(status, "", data[:200].decode(errors="replace"))

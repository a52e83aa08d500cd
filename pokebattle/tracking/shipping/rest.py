"""The few calls of MLflow's REST API that open, fill and close a run.

Standard library only: ``import mlflow`` costs seconds, one call here costs milliseconds.
"""

import base64
import configparser
import functools
import http.client
import json
import os
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from pokebattle.tracking.settings import is_served

API = "/api/2.0/mlflow/"
BATCH = {"metrics": 1000, "params": 100, "tags": 100}  # MLflow's own limits for one log-batch call
IDLE = 2.0  # seconds after which a connection is not used again: the server may have closed it (uvicorn after 5)
LIMIT = {"params": 6000, "tags": 8000}  # characters of a value
PASSING = {408, 425, 429}  # client errors that the next attempt may not meet

Chunks = Callable[[], Iterable[bytes]]


class ServerError(Exception):
    """The server answered, and refused: ``status`` and ``code`` say how."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"HTTP {status} {code}: {message}".replace(" :", ":"))
        self.status, self.code, self.message = status, code, message

    @property
    def denied(self) -> bool:
        """The server wants other credentials."""
        return self.status in {401, 403}

    @property
    def permanent(self) -> bool:
        """MLflow itself will never take this request (a 404 without a code came from another program)."""
        return 400 <= self.status < 500 and self.status not in PASSING and (bool(self.code) or self.status != 404)


class MlflowRest:
    """A client of one MLflow server, for one thread.

    Parameters
    ----------
    uri : str
        ``http`` or ``https`` address, with an optional path.
    timeout : float
        Seconds without a byte after which a call is given up.
    """

    def __init__(self, uri: str, timeout: float = 30.0) -> None:
        self.uri, self.timeout = uri, timeout
        self._connection: http.client.HTTPConnection | None = None
        self._used = 0.0
        self.took = 0.0  # seconds from the last request to its answer

    @functools.cached_property
    def _parts(self) -> SplitResult:
        if not is_served(self.uri):
            raise ValueError(f"expected http://host:port, got {self.uri!r}")
        return urlsplit(self.uri)

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            context = ssl.create_default_context(cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))
            if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in {"1", "true"}:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            return http.client.HTTPSConnection(host, port, timeout=self.timeout, context=context)
        return http.client.HTTPConnection(host, port, timeout=self.timeout)

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> bytes:
        """Send one request and return the answer's body.

        Raises
        ------
        OSError
            No answer.
        ServerError
            An answer other than success.
        ValueError
            The address is none of a server.
        """
        if time.monotonic() - self._used > IDLE:
            self.close()
        began = time.monotonic()
        try:
            if self._connection is None:
                self._connection = self._connect()
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            target = self._parts.path.rstrip("/") + path
            self._connection.request(method, target, body=body, headers={**credentials(), **names})
            answer = self._connection.getresponse()
            data = answer.read()
            self._used = time.monotonic()
            self.took = self._used - began
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

    def call(self, method: str, path: str, /, **fields: Any) -> dict[str, Any]:
        """Call an endpoint (below ``/api/2.0/mlflow/`` unless it begins with a slash) and return its JSON answer."""
        path = path if path.startswith("/") else API + path
        if method == "GET":
            query = "&".join(f"{key}={quote(str(value), safe='')}" for key, value in fields.items())
            data = self.request("GET", f"{path}?{query}")
        else:
            data = self.request(method, path, json.dumps(fields).encode(), Content_Type="application/json")
        try:
            return dict(json.loads(data or b"{}"))
        except ValueError as error:
            raise OSError(f"{self.uri} answers, but not as an MLflow server") from error

    def healthy(self) -> bool:
        """Tell whether the server can read its database; ``/health`` says OK without it."""
        try:
            self.call("POST", "experiments/search", max_results=1)
            return True
        except (OSError, ServerError):
            return False

    def experiment(self, name: str) -> dict[str, Any]:
        """Return the experiment ``name``, creating it when there is none.

        Raises
        ------
        ServerError
            It is deleted, which MLflow's name keeps taken.
        """
        for _ in range(2):
            try:
                found = dict(self.call("GET", "experiments/get-by-name", experiment_name=name)["experiment"])
                if found.get("lifecycle_stage") == "deleted":
                    mend = f"mlflow experiments restore --experiment-id {found['experiment_id']}"
                    raise ServerError(409, "EXPERIMENT_DELETED", f"experiment {name!r} is deleted (`{mend}`)")
                return found
            except ServerError as error:
                if error.status != 404 or not error.code:
                    raise
            try:
                self.call("POST", "experiments/create", name=name)
            except ServerError as error:  # another kernel was quicker
                if error.code != "RESOURCE_ALREADY_EXISTS":
                    raise
        raise ServerError(409, "RESOURCE_ALREADY_EXISTS", f"experiment {name!r} exists but cannot be read")

    def log_batch(
        self, run_id: str, metrics: list[dict[str, Any]] | None = None,
        params: dict[str, Any] | None = None, tags: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Log any number of metric points, parameters and tags, in calls of legal size."""
        whole = {"metrics": list(metrics or []), "params": pairs(params or {}), "tags": pairs(tags or {})}
        while any(whole.values()):
            part = {kind: values[: BATCH[kind]] for kind, values in whole.items()}
            whole = {kind: values[BATCH[kind] :] for kind, values in whole.items()}
            self.call("POST", "runs/log-batch", run_id=run_id, **part)

    def upload(self, artifact_uri: str, path: str, chunks: Chunks, sent: Callable[[], None] = lambda: None) -> None:
        """Store ``chunks()`` as the artifact ``path`` below ``artifact_uri``; ``sent`` is called as the bytes leave."""
        scheme, _, rest = artifact_uri.partition(":")
        if scheme == "file" or artifact_uri.startswith("/"):  # a store that server and clients see alike
            target = Path(unquote(urlsplit(artifact_uri).path)) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                file.writelines(chunks())
            return
        if scheme != "mlflow-artifacts":
            raise ServerError(400, "NOT_PROXIED", f"the server does not serve the artifacts itself ({artifact_uri})")
        root = urlsplit(f"x:{rest}").path.strip("/")

        def body() -> Iterator[bytes]:
            for chunk in chunks():
                yield chunk
                sent()

        size = str(sum(map(len, chunks())))
        target_path = quote(f"/api/2.0/mlflow-artifacts/artifacts/{root}/{path}")
        self.request("PUT", target_path, body(), Content_Type="application/octet-stream", Content_Length=size)


def file_chunks(file: Path) -> Chunks:
    """Return a function that reads ``file`` in pieces."""

    def chunks() -> Iterator[bytes]:
        with file.open("rb") as source:
            while piece := source.read(1 << 20):
                yield piece

    return chunks


def pairs(values: dict[str, Any]) -> list[dict[str, str]]:
    """Return a mapping as MLflow's list of keys and values."""
    return [{"key": str(key), "value": str(value)} for key, value in values.items()]


def params_of(run: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters of a run as the server tells it."""
    return {one["key"]: one["value"] for one in run["data"].get("params", [])}


def tags_of(run: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of a run as the server tells it."""
    return {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}


def credentials() -> dict[str, str]:
    """Return the header that MLflow's own client would send: from the environment, else ``~/.mlflow/credentials``."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if not user and os.environ.get("HOME"):
        stored = configparser.ConfigParser(interpolation=None)
        try:
            stored.read(Path.home() / ".mlflow" / "credentials")
            user = stored.get("mlflow", "mlflow_tracking_username", fallback=None)
            password = stored.get("mlflow", "mlflow_tracking_password", fallback=None)
        except configparser.Error:
            return {}
    if not user:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password or ''}".encode()).decode()}


def _server_error(status: int, data: bytes) -> ServerError:
    try:
        answer = json.loads(data)
        return ServerError(status, str(answer.get("error_code", "")), str(answer.get("message", ""))[:500])
    except (ValueError, AttributeError):
        return ServerError(status, "", data[:200].decode(errors="replace"))

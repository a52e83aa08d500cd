"""The few calls of MLflow's REST API that open, fill and close a run.

Standard library only: ``import mlflow`` costs seconds, one call here costs milliseconds.
"""

import base64
import configparser
import contextlib
import functools
import http.client
import json
import math
import os
import re
import select
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from pokebattle.tracking.settings import is_served
from pokebattle.tracking.shipping import destination
from pokebattle.tracking.shipping.errors import ServerError, UnsentError

API = "/api/2.0/mlflow/"
BATCH = {"metrics": 800, "params": 100, "tags": 100}  # of one log-batch call, for which MLflow takes 1,000 in all
ANSWERS = 20  # by whose dates the server's clock is compared with this one
IDLE = 2.0  # seconds after which a connection is not used again: the server may have closed it (uvicorn after 5)
LIMIT = {"params": 6000, "tags": 8000}  # characters of a value
LENGTH = {"key": 250, "run": 250, "experiment": 256, "user": 256}  # characters of a name that every database keeps
NOT_FINITE = {float("inf"): "Infinity", float("-inf"): "-Infinity"}

Chunks = Callable[[], Iterable[bytes]]


class MlflowRest:
    """A client of one MLflow server, for one thread.

    Parameters
    ----------
    uri : str
        ``http`` or ``https`` address, with an optional path.
    timeout : float
        Seconds without a byte after which a call is given up.
    heard : callable, optional
        Called with the seconds that the server took, whenever it has answered and is well.

    Attributes
    ----------
    ahead : float
        Seconds by which the server's clock is ahead of this one, as its last answers told, to the second. A server
        writes the date of an answer down before it, a busy one much before it: the latest date counts.
    """

    def __init__(self, uri: str, timeout: float = 30.0, heard: Callable[[float], None] = lambda seconds: None) -> None:
        self.uri, self.timeout, self._heard = uri, timeout, heard
        self._told: deque[float] = deque(maxlen=ANSWERS)
        self._connection: http.client.HTTPConnection | None = None
        self._used = 0.0

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
        UnsentError
            No connection.
        OSError
            No answer.
        ServerError
            An answer other than success.
        ValueError
            The address is none of a server.
        """
        if time.monotonic() - self._used > IDLE or self._has_more():
            self.close()
        began = time.monotonic()
        try:
            if self._connection is None:
                self._connection = self._opened()
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            target = self._parts.path.rstrip("/") + path
            self._connection.request(method, target, body=body, headers={**credentials(), **names})
            answer = self._connection.getresponse()
            data = answer.read()
            self._used = time.monotonic()
            self._compare_clocks(answer.getheader("Date"))
        except UnsentError:
            raise
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}") from error
        if answer.status < 500:
            self._heard(self._used - began)
        if answer.status >= 400:
            self.close()
            raise _server_error(answer.status, data)
        return data

    def _opened(self) -> http.client.HTTPConnection:
        connection = self._connect()
        try:
            connection.connect()
        except OSError as error:
            raise UnsentError(str(error)) from error
        return connection

    def _has_more(self) -> bool:
        """Tell whether something comes that nobody asked for: a second answer, or the connection's end."""
        socket = self._connection.sock if self._connection else None
        if socket is None:
            return False
        coming = select.poll()
        coming.register(socket, select.POLLIN)
        return bool(coming.poll(0))

    def _compare_clocks(self, date: str | None) -> None:
        with contextlib.suppress(TypeError, ValueError):
            self._told.append(parsedate_to_datetime(date or "").timestamp() - time.time())

    @property
    def ahead(self) -> float:
        return max(self._told, default=0.0)

    def close(self) -> None:
        """Drop the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def call(self, method: str, path: str, /, **fields: Any) -> dict[str, Any]:
        """Call an endpoint (below ``/api/2.0/mlflow/`` unless it begins with a slash) and return its JSON answer."""
        path = path if path.startswith("/") else API + path
        if method == "GET":
            query = "&".join(f"{key}={quote(str(value), safe='', errors='replace')}" for key, value in fields.items())
            data = self.request("GET", f"{path}?{query}")
        else:
            data = self.request(method, path, as_json(fields), Content_Type="application/json")
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
        if scheme != "mlflow-artifacts":
            destination.upload(artifact_uri, path, chunks)
            return
        root = urlsplit(f"x:{rest}").path.strip("/")

        def body() -> Iterator[bytes]:
            for chunk in chunks():
                yield chunk
                sent()

        try:
            size = str(sum(map(len, chunks())))
        except OSError as error:
            raise ServerError(400, "NOT_READABLE", f"{path} cannot be read here ({error})") from error
        target_path = quote(f"/api/2.0/mlflow-artifacts/artifacts/{root}/{path}", errors="replace")
        self.request("PUT", target_path, body(), Content_Type="application/octet-stream", Content_Length=size)


def as_json(value: Any) -> bytes:
    """Return ``value`` as JSON that MLflow reads to its end.

    Of what is none (a bare NaN, half a surrogate pair) MLflow takes what stands before it, drops the rest and says 200.
    """
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        return json.dumps(_as_told(value), allow_nan=False, ensure_ascii=False).encode()


def _as_told(value: Any) -> Any:
    """Return a JSON value with MLflow's words for numbers that are not finite, and whole characters."""
    if isinstance(value, dict):
        return {_as_told(key): _as_told(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_told(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return NOT_FINITE.get(value, "NaN")
    return whole_characters(value) if isinstance(value, str) else value


def whole_characters(text: str) -> str:
    """Return ``text`` with a question mark for every half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode()


def storable(text: str, limit: int | None = None) -> str:
    """Return ``text`` as every database can keep it: PostgreSQL wants no NUL, and no name that is too long."""
    return whole_characters(text).replace("\0", "\N{REPLACEMENT CHARACTER}")[:limit]


def storable_key(name: str) -> str:
    """Return the name of a parameter or metric as MLflow takes it; ``@`` is written as MLflow's autolog does."""
    return re.sub(r"[^\w. :/-]", "_", storable(name).replace("@", "_at_"))[: LENGTH["key"]]


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

"""The few calls of MLflow's REST API that create, fill and close a run.

Standard library only: ``import mlflow`` takes seconds, a call here takes milliseconds.
"""

import base64
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

from nbtrack import artifact_stores, env_vars
from nbtrack.errors import ServerError, UnsentError
from nbtrack.files import NOT_FINITE
from nbtrack.settings import is_served
from nbtrack.tags import DATA_CONTEXT

API = "/api/2.0/mlflow/"
BATCH = {"metrics": 800, "params": 100, "tags": 100}  # per log-batch request; MLflow accepts 1,000 in total
ANSWERS = 20  # number of responses whose dates are compared with this machine's clock
IDLE = 2.0  # seconds after which a connection is not reused: the server may have closed it (uvicorn after 5)
LIMIT = {"params": 6000, "tags": 8000}  # characters of a value
# characters of a name that every database can store
LENGTH = {"key": 250, "run": 250, "experiment": 256, "user": 256, "digest": 36}

Chunks = Callable[[], Iterable[bytes]]


class MlflowRest:
    """A client of one MLflow server, for use in one thread.

    Parameters
    ----------
    uri : str
        ``http`` or ``https`` address, with an optional path.
    timeout : float
        Seconds without a byte after which a call fails.
    heard : callable, optional
        Called with the seconds that the server took, after each response that is not a server error.

    Attributes
    ----------
    ahead : float
        Seconds by which the server's clock is ahead of this machine's, according to its last responses, with a
        resolution of one second. A server sets a response's date before it sends the response, a busy server
        long before; the latest date counts.
    """

    def __init__(self, uri: str, timeout: float = 30.0, heard: Callable[[float], None] = lambda seconds: None) -> None:
        self.uri, self.timeout, self._heard = uri, timeout, heard
        self._clock_differences: deque[float] = deque(maxlen=ANSWERS)
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
            context = ssl.create_default_context(cafile=os.environ.get(env_vars.SERVER_CERT_PATH))
            if os.environ.get(env_vars.INSECURE_TLS, "").lower() in {"1", "true"}:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            return http.client.HTTPSConnection(host, port, timeout=self.timeout, context=context)
        return http.client.HTTPConnection(host, port, timeout=self.timeout)

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> bytes:
        """Send one request and return the response's body.

        Parameters
        ----------
        method : str
        path : str
            Below the server's address, with query.
        body : bytes or iterable of bytes, optional
        **headers : str
            Names with underscores instead of hyphens.

        Raises
        ------
        UnsentError
            If no connection can be opened.
        OSError
            If there is no response.
        ServerError
            If the response is an error.
        ValueError
            If the address is not that of an http(s) server.
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
        """Return whether unexpected data has arrived: a second response, or the connection's end."""
        socket = self._connection.sock if self._connection else None
        if socket is None:
            return False
        coming = select.poll()
        coming.register(socket, select.POLLIN)
        return bool(coming.poll(0))

    def _compare_clocks(self, date: str | None) -> None:
        with contextlib.suppress(TypeError, ValueError):
            self._clock_differences.append(parsedate_to_datetime(date or "").timestamp() - time.time())

    @property
    def ahead(self) -> float:
        return max(self._clock_differences, default=0.0)

    def close(self) -> None:
        """Close the connection; the next call opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def call(self, method: str, path: str, /, **fields: Any) -> dict[str, Any]:
        """Call an endpoint and return its JSON response.

        Parameters
        ----------
        method : str
        path : str
            Below ``/api/2.0/mlflow/``, unless it begins with a slash.
        **fields
            The request's fields.

        Returns
        -------
        dict

        Raises
        ------
        OSError, ServerError, ValueError
            As `request`; OSError also if the response is not JSON.
        """
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

    def pages(self, method: str, path: str, key: str, /, **fields: Any) -> Iterator[dict[str, Any]]:
        """Yield the entities that a search finds, from all pages.

        Parameters
        ----------
        method, path : str
            As in `call`.
        key : str
            The response's list of entities.
        **fields
            The request's fields.

        Yields
        ------
        dict

        Raises
        ------
        OSError, ServerError, ValueError
            As `call`.
        """
        token: str | None = ""
        while token is not None:
            page = self.call(method, path, **fields, **({"page_token": token} if token else {}))
            yield from page.get(key, [])
            token = page.get("next_page_token") or None

    def search_runs(self, filter_string: str, order_by: str = "attributes.start_time ASC") -> Iterator[dict[str, Any]]:
        """Yield all runs of the server that match a filter.

        Parameters
        ----------
        filter_string : str
            MLflow's filter syntax.
        order_by : str

        Yields
        ------
        dict

        Raises
        ------
        OSError, ServerError, ValueError
            As `call`.
        """
        experiments = self.pages("POST", "experiments/search", "experiments", max_results=1000)
        fields = {"filter": filter_string, "order_by": [order_by], "max_results": 1000}
        ids = [one["experiment_id"] for one in experiments]
        yield from self.pages("POST", "runs/search", "runs", experiment_ids=ids, **fields)

    def healthy(self) -> bool:
        """Return whether the server can read its database; ``/health`` answers OK even without it."""
        try:
            self.call("POST", "experiments/search", max_results=1)
            return True
        except (OSError, ServerError):
            return False

    def experiment(self, name: str) -> dict[str, Any]:
        """Return the experiment ``name``; create it if it does not exist.

        Parameters
        ----------
        name : str

        Returns
        -------
        dict

        Raises
        ------
        ServerError
            If the experiment is deleted, as MLflow keeps its name reserved, or on any other error response.
        OSError
            As `request`.
        """
        for _ in range(2):
            try:
                experiment = dict(self.call("GET", "experiments/get-by-name", experiment_name=name)["experiment"])
                if experiment.get("lifecycle_stage") == "deleted":
                    undo = f"mlflow experiments restore --experiment-id {experiment['experiment_id']}"
                    raise ServerError(409, "EXPERIMENT_DELETED", f"experiment {name!r} is deleted (`{undo}`)")
                return experiment
            except ServerError as error:
                if error.status != 404 or not error.code:
                    raise
            try:
                self.call("POST", "experiments/create", name=name)
            except ServerError as error:  # another kernel has created it meanwhile
                if error.code != "RESOURCE_ALREADY_EXISTS":
                    raise
        raise ServerError(409, "RESOURCE_ALREADY_EXISTS", f"experiment {name!r} exists but cannot be read")

    def log_batch(
        self,
        run_id: str,
        metrics: list[dict[str, Any]] | None = None,
        params: dict[str, Any] | None = None,
        tags: dict[str, Any] | None = None,
    ) -> None:
        """Log any number of metric points, parameters and tags, in requests of allowed size.

        Parameters
        ----------
        run_id : str
        metrics : list of dict, optional
            Metric points.
        params, tags : dict, optional
            Value by name.

        Raises
        ------
        OSError, ServerError
            As `request`.
        """
        whole = {"metrics": list(metrics or []), "params": pairs(params or {}), "tags": pairs(tags or {})}
        while any(whole.values()):
            part = {kind: values[: BATCH[kind]] for kind, values in whole.items()}
            whole = {kind: values[BATCH[kind] :] for kind, values in whole.items()}
            self.call("POST", "runs/log-batch", run_id=run_id, **part)

    def upload(self, artifact_uri: str, path: str, chunks: Chunks, sent: Callable[[], None] = lambda: None) -> None:
        """Store an artifact.

        Parameters
        ----------
        artifact_uri : str
            The folder's address.
        path : str
            The artifact's path below it.
        chunks : callable
            Returns the content in pieces; may be called twice.
        sent : callable
            Called after each piece that was sent.

        Raises
        ------
        ServerError
            If the content cannot be read, or the artifact cannot be stored.
        OSError
            As `request`.
        """
        scheme, _, rest = artifact_uri.partition(":")
        if scheme != "mlflow-artifacts":
            artifact_stores.upload(artifact_uri, path, chunks)
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
    """Return ``value`` as JSON that MLflow can read completely.

    MLflow reads invalid JSON (a bare NaN, half a surrogate pair) up to the error, drops the rest and answers 200.

    Parameters
    ----------
    value : object
    """
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        return json.dumps(_readable(value), allow_nan=False, ensure_ascii=False).encode()


def _readable(value: Any) -> Any:
    """Return a JSON value with MLflow's names for numbers that are not finite, and without half surrogate pairs."""
    if isinstance(value, dict):
        return {_readable(key): _readable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return NOT_FINITE[str(float(value))]
    return whole_characters(value) if isinstance(value, str) else value


def whole_characters(text: str) -> str:
    """Return ``text`` with a question mark in place of every half of a surrogate pair.

    Parameters
    ----------
    text : str
    """
    return text.encode("utf-8", "replace").decode()


def storable(text: str, limit: int | None = None) -> str:
    """Return ``text`` such that every database can store it: PostgreSQL refuses NUL and names that are too long.

    Parameters
    ----------
    text : str
    limit : int, optional
        Maximum number of characters.
    """
    return whole_characters(text).replace("\0", "\N{REPLACEMENT CHARACTER}")[:limit]


def storable_key(name: str) -> str:
    """Return a valid name for an MLflow parameter or metric; ``@`` is replaced as MLflow's autolog does it.

    Parameters
    ----------
    name : str
    """
    return re.sub(r"[^\w. :/-]", "_", storable(name).replace("@", "_at_"))[: LENGTH["key"]]


def file_chunks(file: Path) -> Chunks:
    """Return a function that reads ``file`` in pieces of 1 MB.

    Parameters
    ----------
    file : Path
    """

    def chunks() -> Iterator[bytes]:
        with file.open("rb") as source:
            while piece := source.read(1 << 20):
                yield piece

    return chunks


def pairs(values: dict[str, Any]) -> list[dict[str, str]]:
    """Return a dict in MLflow's form, a list of keys and values.

    Parameters
    ----------
    values : dict
    """
    return [{"key": str(key), "value": str(value)} for key, value in values.items()]


def dataset_input(name: str, digest: str, source: str, part: str, rows: int | None = None) -> dict[str, Any]:
    """Return a part of a data set as an input of a run, in the form of ``runs/log-inputs``.

    Parameters
    ----------
    name, digest : str
        Name and digest of the whole data set.
    source : str
        Where the data come from: a path or an address.
    part : str
        "train", or the name of a part that is held out, which is added to the data set's name.
    rows : int, optional
        Number of rows of the part.
    """
    is_training = part == "train"
    dataset = {
        "name": name if is_training else f"{name}-{part}",
        "digest": digest[: LENGTH["digest"]],
        "source_type": "local",
        "source": json.dumps({"uri": source}),
    }
    profile = {} if rows is None else {"profile": json.dumps({"num_rows": rows})}
    return {"dataset": dataset | profile, "tags": pairs({DATA_CONTEXT: "training" if is_training else part})}


def params_of(run: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters of a run.

    Parameters
    ----------
    run : mapping
        As the server returns it.
    """
    return {one["key"]: one["value"] for one in run["data"].get("params", [])}


def tags_of(run: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of a run.

    Parameters
    ----------
    run : mapping
        As the server returns it.
    """
    return {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}


def metrics_of(run: Mapping[str, Any]) -> dict[str, float]:
    """Return the last values of a run's metrics.

    Parameters
    ----------
    run : mapping
        As the server returns it.
    """
    return {one["key"]: float(one["value"]) for one in run["data"].get("metrics", [])}


def credentials() -> dict[str, str]:
    """Return the header that MLflow's own client would send, from the environment or ``~/.mlflow/credentials``."""
    if token := os.environ.get(env_vars.TOKEN):
        return {"Authorization": f"Bearer {token}"}
    user, password = os.environ.get(env_vars.USERNAME), os.environ.get(env_vars.PASSWORD)
    if not user and os.environ.get("HOME"):
        import configparser  # seldom needed, and kernels should start fast

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

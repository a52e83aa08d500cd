"""Intercepts mlflow's requests to the server in tracked kernels.

All of mlflow's REST traffic passes through one function, ``mlflow.utils.rest_utils.http_request``, which is replaced.
While the server answers, a request is sent to it as usual, once everything that was recorded before has arrived. Two
kinds of writes do not wait: those that cannot fail, and files. They are written to the journal, and the sender delivers
them in order. While the server is away, all writes are recorded like this, with local ids, and a read raises an
exception. Nothing here imports mlflow.
"""

import contextlib
import contextvars
import copy
import functools
import json
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from nbtrack import tags
from nbtrack.journal import mask_request
from nbtrack.kernel import flush_before_spawn
from nbtrack.kernel.execution import ANSWER, LONGEST_WAIT, PAUSE, Execution
from nbtrack.kernel.import_hooks import after_import, replace
from nbtrack.kernel.nonblocking_writes import KnownRuns, Write
from nbtrack.kernel.offline_store import CREATIONS, KnownEntities
from nbtrack.local_ids import LOCAL
from nbtrack.terminal import say_once

API = re.compile(r"/(?:ajax-)?api/[23]\.0/mlflow/")
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"
CONNECT = 5.0  # seconds to open a connection
PASSING = {408, 425, 429, 502, 503, 504}  # the server, or a proxy before it, has a temporary problem
DENIED = {401, 403}
LOST = "the connection was lost"
WRITING = (  # mlflow functions that write: what they read internally is not a read by the cell
    "log_",
    "_log",
    "start_",
    "end_run",
    "set_",
    "create_",
    "register_",
    "_register",
    "delete_",
    "update_",
    "rename_",
    "restore_",
    "transition_",
    "copy_",
    "save_",
    "add_",
    "__exit__",
    "autolog",
    "safe_patch",
    "evaluate",
    "upload",
)
WRAPPERS = {"wrapper", "deprecated_func"}  # names that mlflow's decorators give a function

_requests: "TrackedRequests | None" = None


def install(current: Callable[[], Execution | None]) -> None:
    """Replace mlflow's function for requests once a cell imports mlflow.

    Parameters
    ----------
    current : callable
        Returns the active execution, or None.
    """

    def attach(module: Any) -> None:
        global _requests
        _requests = TrackedRequests(module, current)
        replace(module, "http_request", _requests.wrap(module.http_request))
        flush_before_spawn.install(current)

    after_import("mlflow.utils.rest_utils", attach)


def requests() -> "TrackedRequests | None":
    """Return the object that intercepts mlflow's requests; None before mlflow is imported."""
    return _requests


class UnansweredError(Exception):
    """The server did not answer a request.

    Parameters
    ----------
    reason : str
    sent : bool
        Whether the request was sent, so that the server may have carried it out.
    """

    def __init__(self, reason: str, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


@dataclass
class Request:
    """One request of mlflow's to the server of an execution.

    Attributes
    ----------
    execution : Execution
    method, path, body
        The request.
    name : str
        The path below ``/api/2.0/mlflow/``; empty for other paths.
    options : dict
        Keyword arguments of mlflow's function.
    send : callable
        mlflow's own function for sending it.
    """

    execution: Execution
    method: str
    path: str
    name: str
    body: dict[str, Any]
    options: dict[str, Any]
    send: Callable[..., Any]

    @property
    def asks(self) -> bool:
        """Whether it only reads."""
        last = self.name.rpartition("/")[2]
        return self.method == "GET" or (self.method == "POST" and ("search" in last or last.startswith("get-")))

    @property
    def write(self) -> Write:
        """Endpoint and body, for a request that writes."""
        return Write(self.name, self.body)

    def text(self) -> str:
        """Return the parts of the request that may contain ids."""
        return f"{self.path} {json.dumps(self.body)} {json.dumps(self.options.get('params') or {})}"


class TrackedRequests:
    """Sends mlflow's requests or records them for the sender.

    Parameters
    ----------
    module : module
        ``mlflow.utils.rest_utils``.
    current : callable
        Returns the active execution, or None.
    """

    def __init__(self, module: Any, current: Callable[[], Execution | None]) -> None:
        self.module, self.current = module, current
        self.runs, self.offline = KnownRuns(), KnownEntities()
        self._recorded_until: dict[str, int] = {}  # by run: the journal's offset after the last write to it

    def wrap(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function that mlflow will call instead of ``plain``.

        Parameters
        ----------
        plain : callable
            ``mlflow.utils.rest_utils.http_request``.
        """

        @functools.wraps(plain)
        def http_request(host_creds: Any, endpoint: str, method: str, *args: Any, **kwargs: Any) -> Any:
            execution = self.current()
            url = host_creds.host.rstrip("/") + endpoint
            if execution is None or args or not url.startswith(execution.uri + "/"):
                if execution:  # another server, or this one at another address
                    execution.deliver()
                return plain(host_creds, endpoint, method, *args, **kwargs)
            path = url[len(execution.uri) :]
            match = API.match(path)
            if not match and not path.startswith("/api/"):
                return plain(host_creds, endpoint, method, **kwargs)
            name = path[match.end() :] if match else ""
            server = copy.copy(host_creds)  # an artifact repository's host contains a folder, which may have a local id
            server.host = execution.uri
            send = functools.partial(plain, server)
            return self._handle(Request(execution, method, path, name, kwargs.get("json") or {}, kwargs, send), url)

        return http_request

    def _handle(self, request: Request, url: str) -> Any:
        if request.asks:
            answer = self._ask(request)
        elif request.path.startswith(ARTIFACTS) and request.method == "PUT":
            answer = self._stage(request)
        else:
            answer = self._write(request)
        return self._response(url, *answer) if isinstance(answer, tuple) else answer

    def _response(self, url: str, status: int, body: dict[str, Any] | bytes) -> Any:
        response = self.module.requests.Response()
        response.status_code, response.url, response.encoding = status, url, "utf-8"
        response._content = body if isinstance(body, bytes) else json.dumps(body).encode()
        response._content_consumed = True
        return response

    # -- writes ----------------------------------------------------------------------------------

    def _stage(self, request: Request) -> Any:
        """Record a file for the sender; its path ends at ``#`` or ``?``, as that of mlflow's own request would."""
        path = unquote(re.split("[#?]", request.path[len(ARTIFACTS) :])[0])
        try:
            if staged := request.execution.journal.stage(request.options.get("data") or b""):
                request.execution.emit("artifact", path=path, file=staged)
                self.offline.files[path] = request.execution.journal.folder / "files" / staged
        except Exception as error:
            _not_kept(error)
        return 200, {}

    def _write(self, request: Request) -> Any:
        execution, write = request.execution, request.write
        if not (execution.refused or execution.deleted) and self.runs.try_apply(write):
            self.offline.follow(write)
            try:
                execution.emit("call", method=request.method, path=request.path, body=write.body)
                self._note_recorded(request)
            except Exception as error:
                _not_kept(error)
            return 200, {}
        self._name_notebook(request)
        doubtful, began, asked_at = False, int(time.time() * 1000), time.monotonic()
        if self._is_ready(request, execution.write_timeout) and not self._waits_behind(request):
            try:
                response = self._send(request, execution.write_timeout)
            except UnansweredError as error:
                execution.record_timeout(execution.write_timeout, asked_at)
                doubtful = error.sent
            else:
                if response.status_code not in DENIED and not self._is_away(request, response):
                    self._learn(request, response)
                    return response
                doubtful = response.status_code not in DENIED | {404}
        if write.name.startswith("traces"):  # mlflow reports that it is lost, and continues
            raise self.module.MlflowException(f"{execution.uri} accepts no traces at the moment")
        if not write.name:  # not a request that the sender can deliver
            return 200, {}
        if conflict := self.runs.param_conflict(write):
            return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": conflict}
        try:
            return self._keep(request, {"doubtful": True, "began": began} if doubtful else {})
        except Exception as error:
            _not_kept(error)
            return 200, {}

    def _keep(self, request: Request, unclear: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        write = request.write
        answer = self.offline.record_offline(request.execution, request.method, request.path, write, unclear)
        self.offline.follow(write)
        self.runs.sent(write)
        self._note_recorded(request)
        if write.name == "runs/create":
            self.runs.learn(answer[1]["run"]["info"]["run_id"], {})
        return answer

    def _note_recorded(self, request: Request) -> None:
        if run := request.write.run:
            self._recorded_until[run] = request.execution.recorded_until

    def _waits_behind(self, request: Request) -> bool:
        """Return whether an earlier write is not delivered yet: to the same run, or the registered model's creation."""
        if request.execution.progress.offset < self._recorded_until.get(request.write.run, 0):
            return True  # the server refuses it, and may accept it later, after this one
        name = str(request.body.get("name"))
        if name not in self.offline.kept or not request.name.startswith(("registered-models/", "model-versions/")):
            return False
        with contextlib.suppress(self.module.MlflowException):
            options = {"params": {"name": name}, "timeout": (CONNECT, request.execution.write_timeout)}
            path = "/api/2.0/mlflow/registered-models/get"
            if request.send(path, "GET", **options, max_retries=0, raise_on_status=False).status_code == 200:
                self.offline.kept.discard(name)
                return False
        return True

    def _is_away(self, request: Request, response: Any) -> bool:
        """Return whether a response does not come from a working MLflow server."""
        status = response.status_code
        if status in PASSING:
            return True
        if status == 404 and _error_code(response):
            return False
        return status in {404, 500} and not self._is_well(request, PAUSE)

    def _is_well(self, request: Request, timeout: float) -> bool:
        """Return whether an MLflow server can read its database, so that only the one request fails."""
        try:
            path = "/api/2.0/mlflow/experiments/search"
            options = {"params": {"max_results": 1}, "timeout": timeout}
            answer = request.send(path, "GET", **options, max_retries=0, raise_on_status=False)
        except self.module.MlflowException:
            return False
        return answer.status_code < 500 and answer.status_code != 404

    def _name_notebook(self, request: Request) -> None:
        """Set the notebook as a run's source, as mlflow only knows the kernel's program."""
        if request.name == "runs/create" and (notebook := request.execution.start["notebook"]):
            for tag in request.body.get("tags", []):
                if tag["key"] == tags.SOURCE_NAME and tag["value"].endswith("ipykernel_launcher.py"):
                    tag["value"] = notebook

    def _learn(self, request: Request, response: Any) -> None:
        """Store what the response to a request shows about its entities."""
        if response.status_code != 200:
            return
        write, name = request.write, request.name
        self.runs.sent(write)
        self.offline.follow(write)
        execution, experiment_id = request.execution, str(write.body.get("experiment_id"))
        if (name == "runs/delete" and execution.owns(write.run)) or (
            name == "experiments/delete" and execution.is_in_experiment(experiment_id)
        ):
            execution.deleted = True
        if request.method == "POST" and (kind := CREATIONS.get(name)):
            whole = response.json()
            self.offline.remember(kind, whole)
            if kind == "run":
                self.runs.learn(whole["run"]["info"]["run_id"], {})
        elif name == "runs/update":
            self.runs.learn(write.run)

    # -- reads -------------------------------------------------------------------------------------

    def _ask(self, request: Request) -> Any:
        """Send a read with the server's ids, after the server has received everything that was recorded before."""
        execution = request.execution
        asked = not _outermost_function().startswith(WRITING)
        patience = max(ANSWER, execution.write_timeout) if asked else execution.write_timeout
        began = time.monotonic()
        ready = self._is_ready(request, patience)
        reason = (
            execution.progress.facts.get("away")
            or execution.progress.facts.get("refused")
            or "the answer takes too long"
        )
        recorded = self._recorded(request, asked)
        if ready:
            try:
                response = self._send(request, patience, again=True)
                if recorded and response.status_code in DENIED | {404}:
                    return recorded
                if not self._is_away(request, response):
                    return response
                reason = f"HTTP {response.status_code}"
            except UnansweredError as error:
                execution.record_timeout(patience, began)
                reason = str(error)
        if recorded:
            return recorded
        if not asked and request.name:
            message = f"{execution.uri} cannot be reached"
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": message}
        raise self.module.MlflowException(f"{execution.uri} cannot answer now ({reason})")

    def _recorded(self, request: Request, asked: bool) -> Any:
        """Return the answer to a read about what the server does not have yet, or to a read of mlflow's own."""
        local = LOCAL.search(_translate(request.execution, request.text()))
        if local and request.path.startswith(ARTIFACTS.rstrip("/")):
            return self._kept_file(request)
        known = self._remembered(request) if local or not asked else None
        return (200, known) if known else None

    def _kept_file(self, request: Request) -> Any:
        """Return a file that waits for delivery, or the list of a folder of such files."""
        path = unquote(request.path[len(ARTIFACTS) :])
        if not path:
            return 200, self.offline.listed(str((request.options.get("params") or {}).get("path", "")))
        if not (file := self.offline.files.get(path)) or not file.exists():
            return None
        return 200, file.read_bytes()

    def _remembered(self, request: Request) -> dict[str, Any] | None:
        return self.offline.look_up(request.name, request.options.get("params") or request.body)

    # -- sending -----------------------------------------------------------------------------------

    def _is_ready(self, request: Request, patience: float) -> bool:
        """Wait until the server has received what was recorded before.

        Returns
        -------
        bool
            Whether the server answers, and knows all ids in the request if it is a write.
        """
        execution = request.execution
        execution.recheck_server(functools.partial(self._is_well, request), patience)
        may_answer = execution.may_answer_within
        if not (may_answer(patience) and execution.wait_until_received(patience) and may_answer(patience)):
            return False
        return request.asks or not LOCAL.search(_translate(execution, request.text()))

    def _send(self, request: Request, patience: float, again: bool = False) -> Any:
        """Send a request with the server's ids; with ``again``, a second time if the connection was closed.

        Raises
        ------
        UnansweredError
            If there is no response.
        """
        execution, options = request.execution, dict(request.options)
        for part in ("json", "params"):
            if options.get(part):
                options[part] = json.loads(_translate(execution, json.dumps(mask_request(options[part]))))
        options |= {"timeout": (CONNECT, max(patience, LONGEST_WAIT)), "max_retries": 0, "raise_on_status": False}
        began = time.monotonic()
        send = functools.partial(request.send, _translate(execution, request.path), request.method, **options)
        try:
            response = _awaited(send, execution, patience) if patience < LONGEST_WAIT else send()
        except self.module.MlflowException as error:
            cause = error.__cause__ or error.__context__
            unanswered = self._unanswered(cause)
            if unanswered is None:
                raise
            if again and isinstance(cause, self.module.requests.exceptions.ConnectionError) and str(unanswered) == LOST:
                return self._send(request, patience)
            raise unanswered from None
        if "search" not in request.name and request.name:
            execution.answered(time.monotonic() - began)
        return response

    def _unanswered(self, cause: BaseException | None) -> UnansweredError | None:
        errors = self.module.requests.exceptions
        if isinstance(cause, errors.ConnectTimeout):
            return UnansweredError("no connection", sent=False)
        if isinstance(cause, errors.Timeout) or "ReadTimeoutError" in repr(cause):  # urllib3's, if it counts attempts
            return UnansweredError("the answer takes too long", sent=True)
        if isinstance(cause, errors.ConnectionError | errors.ChunkedEncodingError | errors.ContentDecodingError):
            refused = "NewConnectionError" in repr(cause) or "NameResolutionError" in repr(cause)
            return UnansweredError("no connection" if refused else LOST, sent=not refused)
        return None

    def adopt(self, execution: Execution, run: dict[str, Any]) -> dict[str, Any]:
        """Store the execution's own run, which the sender creates, and return it in the server's format.

        Parameters
        ----------
        execution : Execution
        run : dict
            From `Execution.run`.
        """
        if known := self.offline.look_up("runs/get", run):
            return known
        start = execution.start
        info = {
            "run_id": run["run_id"],
            "run_uuid": run["run_id"],
            "experiment_id": run["experiment_id"],
            "run_name": (execution.names or ("", ""))[1],
            "user_id": start["user"],
            "status": "RUNNING",
            "start_time": execution.began,
            "artifact_uri": run["artifact_uri"],
            "lifecycle_stage": "active",
        }
        tagged = {
            tags.USER: start["user"],
            tags.SOURCE_NAME: start["notebook"] or start["executor"],
            tags.SOURCE_TYPE: "NOTEBOOK",
            tags.RUN_NAME: info["run_name"],
        }
        pairs = [{"key": key, "value": value} for key, value in tagged.items()]
        whole = {"run": {"info": info, "data": {"tags": pairs}}}
        self.offline.remember("run", whole)
        place = {
            "experiment_id": run["experiment_id"],
            "name": (execution.names or ("", ""))[0],
            "lifecycle_stage": "active",
            "artifact_location": run["artifact_uri"].rpartition("/")[0],
        }
        self.offline.remember("experiment", {"experiment": place})
        self.runs.learn(run["run_id"], {})
        return whole


def _awaited(send: Callable[[], Any], execution: Execution, patience: float) -> Any:
    """Return the result of ``send``; wait for a slow server as long as it answers other requests.

    Raises
    ------
    UnansweredError
        If it takes longer than a working server would.
    """
    outcome: list[Any] = []
    done, began = threading.Event(), time.monotonic()

    def work() -> None:
        try:
            outcome.append(send())
        except BaseException as error:
            outcome.append(error)
        finally:
            done.set()

    threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True).start()
    while not done.wait(patience):
        if time.monotonic() - began > LONGEST_WAIT or execution.hangs():
            raise UnansweredError("the answer takes too long", sent=True)
    if isinstance(error := outcome[0], BaseException):
        cause = error.__context__
        try:
            raise error
        finally:
            error.__context__ = cause  # raise has replaced it by the exception that the cell handles, if any
    return outcome[0]


def _translate(execution: Execution, text: str) -> str:
    return LOCAL.sub(lambda match: execution.progress.ids.get(match[2], match[0]), text)


def _error_code(response: Any) -> str:
    """Return MLflow's own error code; empty if the response is not MLflow's."""
    with contextlib.suppress(ValueError, AttributeError):
        return str(response.json().get("error_code", ""))
    return ""


def _outermost_function() -> str:
    """Return the name of the mlflow function that the cell, or another library, has called."""
    frame, outer = sys._getframe(1), ""
    while frame:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("mlflow."):
            outer = outer if outer and frame.f_code.co_name in WRAPPERS else frame.f_code.co_name
        elif outer and not module.startswith(("nbtrack.", "contextlib", "functools")):
            break
        frame = frame.f_back  # type: ignore[assignment]
    return outer


def _not_kept(error: Exception) -> None:
    say_once(f"a call of mlflow's was not recorded ({type(error).__name__}: {error})")

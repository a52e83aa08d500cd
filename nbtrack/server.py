"""This checkout's local MLflow server (SQLite, 127.0.0.1): start it in the background, find it and stop it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from nbtrack import env_vars
from nbtrack.errors import UserError
from nbtrack.files import write_atomically
from nbtrack.paths import state_dir
from nbtrack.settings import DEFAULT_URI, START_SECONDS, server_record, tracking_uri
from nbtrack.terminal import say_once

STOP_SECONDS = 20.0
QUIET = 3.0  # seconds of waiting for a start without a word


class ServerStartError(UserError):
    """The local server did not start; the message names its log."""


def answers(uri: str, timeout: float = 2.0) -> bool:
    """Return whether an MLflow server answers at ``uri``.

    Parameters
    ----------
    uri : str
    timeout : float
        Seconds.
    """
    try:
        with urllib.request.urlopen(f"{uri}/version", timeout=timeout) as reply:
            return bool(reply.status == 200 and reply.read(20)[:1].isdigit())
    except urllib.error.HTTPError as error:  # a server with accounts asks for a password, a gateway may deny everything
        return error.code == 401 or (error.code == 403 and uri != DEFAULT_URI)  # on macOS, AirPlay denies at port 5000
    except (OSError, ValueError):
        return False


def foreign_server_note(uri: str) -> str:
    """Return a remark if the server at ``uri`` was neither named by the user nor started by this checkout.

    Parameters
    ----------
    uri : str

    Returns
    -------
    str
        Empty if there is nothing to remark.
    """
    record = server_record()
    if os.environ.get(env_vars.TRACKING_URI) or (uri == record.get("uri") and process(record)):
        return ""
    return "not started by this checkout; runs go to it (`python -m nbtrack server start --own` starts a separate one)"


def process(record: Mapping[str, Any]) -> psutil.Process | None:
    """Return the recorded server's process if it is alive and its pid was not reused.

    Parameters
    ----------
    record : mapping
        From `server_record`.
    """
    try:
        process_ = psutil.Process(int(record["pid"]))
        same = abs(process_.create_time() - float(record["created"])) < 1
        return process_ if same and process_.status() != psutil.STATUS_ZOMBIE else None
    except (KeyError, ValueError, psutil.Error):
        return None


def start(wait: bool = True, own: bool = False) -> tuple[str, list[str]]:
    """Start the local server unless a server already answers.

    Parameters
    ----------
    wait : bool
        Return only when the server answers; otherwise it starts in the background.
    own : bool
        Start one even if a server answers that this checkout has not started and MLFLOW_TRACKING_URI does not name.

    Returns
    -------
    uri : str
    remarks : list of str
        What the user should know, for example that another port was used.

    Raises
    ------
    ServerStartError
        If it ended or did not answer within three minutes, or no port is free.
    """
    uri, remarks, record = tracking_uri(), [], server_record()
    if end_remains(record, _folder()):  # they would answer, and `stop` could not stop them
        remarks.append(f"ended leftover processes of the MLflow server at {record['uri']}")
    if answers(uri):
        note = foreign_server_note(uri)
        if not (own and note):
            return uri, remarks + ([f"the MLflow server at {uri} was {note}"] if note else [])
    if named := os.environ.get(env_vars.TRACKING_URI):
        remarks.append(f"MLFLOW_TRACKING_URI is {named}, where no server answers")
    if process(record) is None:
        record, more = _spawn()
        remarks += more
    if wait:
        own_uri = str(record["uri"])
        await_answer(record, lambda: None if answers(own_uri) else f"no answer from {own_uri}", _not_started)
    return str(record["uri"]), remarks


def _not_started(problem: str | None) -> ServerStartError:
    what = f"{problem} in {START_SECONDS:.0f} s" if problem else "the MLflow server ended before it answered"
    return ServerStartError(f"{what}; its log is {_folder() / 'server.log'}")


def _folder() -> Path:
    return state_dir() / "server"


def _spawn() -> tuple[dict[str, Any], list[str]]:
    port, remarks = _choose_port()
    folder = _folder()
    (folder / "artifacts").mkdir(parents=True, exist_ok=True, mode=0o700)
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        "--backend-store-uri",
        f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    variables = {k: v for k, v in os.environ.items() if k not in {env_vars.TRACKING_URI, env_vars.RUN_ID}}
    record = spawn(command, variables | env_vars.SERVER_SWITCHES, folder, port)
    write_atomically(state_dir() / "server.json", json.dumps(record))
    (folder / "port").write_text(f"{port}\n")
    return record, remarks


def spawn(command: Sequence[str], env: Mapping[str, str], folder: Path, port: int) -> dict[str, Any]:
    """Start a server in the background, detached from this process and its terminal.

    Parameters
    ----------
    command : sequence of str
    env : mapping
        The server's environment.
    folder : Path
        The server's working folder; its output is appended to ``server.log`` there, which only its owner can read.
    port : int
        The port on 127.0.0.1 that the server will listen on.

    Returns
    -------
    record : dict
        ``uri``, ``pid`` and ``created`` (when the process began), by which `process` finds it again.
    """
    handle = os.open(folder / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(handle, "ab") as log:
        child = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=folder
        )
    return {"uri": f"http://127.0.0.1:{port}", "pid": child.pid, "created": psutil.Process(child.pid).create_time()}


def _choose_port() -> tuple[int, list[str]]:
    """Return MLflow's port if it is free, else the last used or any free port, with a remark on what uses MLflow's."""
    wanted, last = urlsplit(DEFAULT_URI).port, _folder() / "port"
    assert wanted is not None
    known = [int(text)] if last.is_file() and (text := last.read_text().strip()).isdigit() else []
    for port in (wanted, *known, 0):
        if taken := free_port(port):
            remark = f"port {wanted} is in use by {holder(wanted)}; using port {taken}"
            return taken, [] if port == wanted else [remark]
    raise ServerStartError("no free port on 127.0.0.1")


def free_port(port: int) -> int:
    """Return a port of 127.0.0.1 if a server can listen on it; 0 if it is in use.

    Parameters
    ----------
    port : int
        0 for any free port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    return 0


def holder(port: int) -> str:
    """Return the name of the program that listens on a port of this machine.

    Parameters
    ----------
    port : int
    """
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return "another program"


def await_answer(
    record: Mapping[str, Any], problem: Callable[[], str | None], fail: Callable[[str | None], Exception]
) -> None:
    """Wait until a started server works, for at most `START_SECONDS` seconds; after `QUIET` seconds, say so.

    Parameters
    ----------
    record : mapping
        From `spawn`.
    problem : callable
        Returns what is wrong with the server, None if it works.
    fail : callable
        Returns the error to raise: for the last problem, or for None if the process has ended.

    Raises
    ------
    Exception
        From ``fail``.
    """
    began = time.monotonic()
    while (wrong := problem()) is not None:
        if process(record) is None:
            raise fail(None)
        if time.monotonic() - began > START_SECONDS:
            raise fail(wrong)
        if time.monotonic() - began > QUIET:
            say_once(f"waiting for {record['uri']}, for up to {START_SECONDS:.0f} s")
        time.sleep(0.25)


def stop() -> str | None:
    """Stop the server that ``start`` recorded; return its address, or None if there was no server to stop."""
    record = server_record()
    running = process(record)
    (state_dir() / "server.json").unlink(missing_ok=True)
    if running is not None:
        end(running.pid)
    elif not end_remains(record, _folder()):
        return None
    return str(record["uri"])


def end_remains(record: Mapping[str, Any], folder: Path) -> bool:
    """Stop the leftover processes of a recorded server whose main process was killed.

    Parameters
    ----------
    record : mapping
        From `server_record`.
    folder : Path
        The server's working folder.

    Returns
    -------
    bool
        Whether there was something to stop.
    """
    group = record.get("pid")
    if not group or process(record) is not None or not any(_in(folder, member) for member in _members(group)):
        return False  # the id may have been reused by another program
    end(group)
    return True


def end(group: int) -> None:
    """Stop a server's process group: SIGTERM first, then SIGKILL.

    Parameters
    ----------
    group : int
        The group's id, which is the process id of its first process.
    """
    for sign in (signal.SIGTERM, signal.SIGKILL):  # the whole group, as the workers outlive their parent
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, sign)
        deadline = time.monotonic() + STOP_SECONDS
        while (alive := any(_members(group))) and time.monotonic() < deadline:
            time.sleep(0.1)
        if not alive:
            break


def _members(group: int) -> Iterator[psutil.Process]:
    """Yield the live processes of a process group."""
    for candidate in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(candidate.pid) == group and candidate.status() != psutil.STATUS_ZOMBIE:
                yield candidate


def _in(folder: Path, member: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return Path(member.cwd()) == folder.resolve()
    return False

"""Start and stop PostgreSQL and MLflow for a team on this machine, without Docker."""

import contextlib
import fcntl
import functools
import json
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbtrack import server
from nbtrack.files import read_json, write_atomically
from nbtrack.paths import project
from nbtrack.settings import START_SECONDS
from nbtrack.team import postgres
from nbtrack.team import settings as s
from nbtrack.team.accounts import AccountsClient
from nbtrack.team.backup import Place
from nbtrack.team.settings import SettingsError


@dataclass(frozen=True)
class Part:
    """One line of the server's status.

    Attributes
    ----------
    name : str
    well : bool
        Whether it works.
    text : str
        What was found.
    """

    name: str
    well: bool
    text: str


def start() -> tuple[str, list[str]]:
    """Start database and server unless they run, and create missing roles and accounts.

    Returns
    -------
    uri : str
        The server's address.
    remarks : list of str
        What the user should know.

    Raises
    ------
    SettingsError
        If a setting is invalid, the port is in use, or a part does not start; the message names its log.
    """
    remarks = []
    if filled := s.write_env(s.env_file(), project() / ".env.example"):
        remarks.append(f"{s.env_file()} contains new random secrets: {', '.join(filled)}")
    settings = s.load()
    for kind in ("ADMIN", "TEAM", "PROMOTER"):
        s.login(settings, kind)
    with _alone():
        uri = _database(settings)
        record = _record()
        if server.process(record) is None:
            server.end_remains(record, s.folder())
            record = _spawn(settings, uri)
        own_uri, boot = str(record["uri"]), record.get("boot")
        server.await_answer(record, lambda: health(own_uri, boot), functools.partial(_not_started, own_uri))
        if s.with_accounts(settings):
            remarks += AccountsClient(own_uri, s.login(settings, "ADMIN")).apply(settings)
    return str(record["uri"]), remarks


def _database(settings: Mapping[str, str]) -> str:
    """Start PostgreSQL, unless the settings name another database; return its address."""
    if settings.get(s.BACKEND_STORE, "").strip():
        return s.database(settings)
    user, word = s.need(settings, s.DATABASE_USER), s.password(settings, s.DATABASE_PASSWORD)
    folder = postgres.start(s.folder() / "postgres", user, word, s.need(settings, s.DATABASE_NAME))
    return s.database(settings, folder)


def _spawn(settings: Mapping[str, str], uri: str) -> dict[str, Any]:
    port = s.number(settings, s.PORT, 5000)
    if not server.free_port(port):
        raise SettingsError(
            f"MLFLOW_PORT: {port} is in use by {server.holder(port)}; stop it (`make stop` stops the local server), "
            "or set another port in .env"
        )
    artifacts = s.folder() / "artifacts"
    artifacts.mkdir(exist_ok=True, mode=0o700)
    boot = secrets.token_hex(8)
    places = {
        s.BOOT: boot,
        s.BACKEND_STORE: uri,
        s.ARTIFACT_ROOT: settings.get(s.ARTIFACT_ROOT) or str(artifacts),
        s.AUTH_CONFIG: str(s.folder() / "auth.ini"),
        s.HOST: "127.0.0.1",
    }
    record = server.spawn(
        [sys.executable, "-m", "nbtrack", "shared", "serve"], dict(settings) | places, s.folder(), port
    )
    record["boot"] = boot if s.with_accounts(settings) else None
    write_atomically(s.folder() / "server.json", json.dumps(record))
    return record


def _not_started(uri: str, problem: str | None) -> SettingsError:
    if problem is None:
        return SettingsError(f"the MLflow server ended before it answered: {_last_line()} (its log is {_log()})")
    return SettingsError(f"{uri} after {START_SECONDS:.0f} s: {problem}; its log is {_log()}")


def health(uri: str, boot: str | None = None, timeout: float = 10.0) -> str | None:
    """Return what is wrong with a server, which reads its databases for this check; None if it works.

    Parameters
    ----------
    uri : str
    boot : str, optional
        The id that the server was given at its start, to detect another server on its port.
    timeout : float
        Seconds.
    """
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=timeout) as reply:
            if boot and reply.headers.get(s.BOOT_HEADER) != boot:
                return "another server answers there"
            return None if reply.read(20) == b"OK" else "it does not answer as MLflow does"
    except urllib.error.HTTPError as error:
        return error.read(200).decode(errors="replace") or f"HTTP {error.code}"
    except (OSError, ValueError) as error:
        return f"it does not answer ({error})"


def stop() -> list[str]:
    """Stop the server, then its database; return what was stopped."""
    stopped = []
    with _alone():
        if (running := server.process(_record())) is not None:
            server.end(running.pid)
            stopped.append(f"the MLflow server at {_record()['uri']}")
        elif server.end_remains(_record(), s.folder()):
            stopped.append(f"leftover processes of the MLflow server at {_record()['uri']}")
        if postgres.stop(s.folder() / "postgres"):
            stopped.append("its PostgreSQL")
        for name in ("server.json", "auth.ini"):
            (s.folder() / name).unlink(missing_ok=True)
    return stopped


def status() -> list[Part]:
    """Check the database, the server, and whether the server can read the database."""
    record, settings = _record(), s.load()
    uri = str(record.get("uri") or f"http://127.0.0.1:{settings.get(s.PORT) or 5000}")
    if settings.get(s.BACKEND_STORE, "").strip():
        database = Part("database", True, "elsewhere (MLFLOW_BACKEND_STORE_URI)")
    else:
        running = postgres.runs(s.folder() / "postgres")
        database = Part("database", running, "PostgreSQL runs" if running else "PostgreSQL does not run")
    running = server.process(record) is not None
    process = Part("server", running, f"process {record['pid']}" if running else "no process of this checkout")
    problem = health(uri, record.get("boot"))
    accounts_ = Part(
        "accounts",
        True,
        "passwords are required"
        if s.with_accounts(settings)
        else "off (MLFLOW_ENABLE_AUTH): anyone who reaches the port has full access",
    )
    return [database, process, Part("health", problem is None, f"{uri}: {problem or 'reads its databases'}"), accounts_]


@contextlib.contextmanager
def place() -> Iterator[Place]:
    """Yield where the server's data are; if its database does not run, start it for the ``with`` block.

    Yields
    ------
    Place

    Raises
    ------
    SettingsError
        If a setting is missing or invalid, or the database does not start.
    """
    settings, folder = s.load(), s.folder() / "postgres"
    artifacts = settings.get(s.ARTIFACT_ROOT, "").strip() or str(s.folder() / "artifacts")
    elsewhere = settings.get(s.BACKEND_STORE, "").strip() or settings.get(s.DATABASE_HOST, "").strip()
    if elsewhere:
        yield Place(s.database(settings), artifacts)
        return
    with _alone():
        started = not postgres.runs(folder)
        try:
            yield Place(_database(settings), artifacts)
        finally:
            if started:
                postgres.stop(folder)


def is_running() -> bool:
    """Return whether the server of this checkout runs."""
    return server.process(_record()) is not None


def _record() -> dict[str, Any]:
    return read_json(s.folder() / "server.json")


def _log() -> Path:
    return s.folder() / "server.log"


def _last_line() -> str:
    """Return the log's last line with an error, else its last line."""
    lines = _log().read_text("utf-8", errors="replace").strip().splitlines() if _log().is_file() else []
    last = lines[-1] if lines else "the log is empty"
    return next((line for line in reversed(lines) if "error" in line.lower()), last).removeprefix("Error: ")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Prevent other processes from starting or stopping the same server during the ``with`` block."""
    s.folder().mkdir(parents=True, exist_ok=True)
    with (s.folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
